//! The structural checks of an artifact: every length, offset and number is validated here once, with checked
//! arithmetic, so that later reads only slice.

use super::artifact::{ArtifactView, GOLDEN_HEADER_BYTES, key_of, u32_at};
use super::header::{HEADER_BYTES, OPTIONAL, SectionKind};
use super::sections::{NEEDED, alignment};
use super::spec::{
    ANSWER_COLUMNS, Block, CurveId, EXPERT_STEP, ExitHead, FfnKind, HeadMatrix, LayerCacheFormat, LayerRecord,
    MAX_CHOSEN, MAX_CHUNK, MAX_DIMENSION, MAX_EXPERTS, MAX_LAYERS, MAX_TAPS, ModelKind, ModelRecord, NONE, NormKind,
    NormPlacement, Output, Pooling, QueryKeyNorm, Stacks,
};
use super::tensor::TensorRole::{EmbedPosition, EmbedToken, EmbedType, LmHead};
use super::tensor::{TensorKey, TensorPart, TensorRecord, TensorRole};
use super::text_tables::TextTables;
use super::{FormatError, Record};
use crate::kernels::Width;
use crate::layout::{ALIGNMENT, SPLIT_ROWS, Storage, tensor_bytes};

impl<'a> ArtifactView<'a> {
    pub(super) fn read_sections(&mut self) -> Result<(), FormatError> {
        let mut end = HEADER_BYTES as u64;
        let mut host_began = false;
        for (index, record) in self.section_records().enumerate() {
            let fault = |fault| FormatError::Section(record.kind, fault);
            let kind = NEEDED.get(index).copied();
            if let Some(kind) = kind {
                if record.kind != kind as u32 {
                    return Err(FormatError::section(kind, "missing or out of order"));
                }
            } else if record.kind & OPTIONAL == 0 {
                return Err(fault("unknown and not optional"));
            }
            let alignment = alignment(record.kind, self.header.page_bytes);
            let host = match record.host {
                0 if !host_began => false,
                1 if kind.is_none() => true,
                _ => return Err(fault("device sections stand before host sections")),
            };
            if host && !host_began {
                if end > self.header.device_bytes {
                    return Err(FormatError::Header("device_bytes"));
                }
                self.check_padding(end, self.header.device_bytes)?;
                end = self.header.device_bytes;
                host_began = true;
            }
            let expected = end.checked_next_multiple_of(alignment).ok_or(fault("too large"))?;
            if record.offset != expected || record.reserved != 0 {
                return Err(fault("does not start where the one before it ends"));
            }
            self.check_padding(end, expected)?;
            end = expected.checked_add(record.bytes).ok_or(fault("too large"))?;
            if end > if host { self.header.file_bytes } else { self.header.device_bytes } {
                return Err(fault("runs past the end of its part"));
            }
            if host && self.device_only() {
                continue;
            }
            #[cfg(feature = "streaming")]
            if self.absent.is_some() && kind == Some(SectionKind::Weights) {
                continue;
            }
            let place = |offset| usize::try_from(self.located(offset)).map_err(|_| fault("too large for this machine"));
            let (start, stop) = (place(record.offset)?, place(end)?);
            let content = self.bytes.get(start..stop).ok_or(fault("runs past the end of the file"))?;
            match kind {
                Some(SectionKind::Spec) => self.layers = content,
                Some(SectionKind::Tensors) => self.tensors = content,
                Some(SectionKind::Functions) => self.functions = content,
                Some(SectionKind::Weights) => self.weights = content,
                Some(SectionKind::Vocabulary) => self.vocabulary = content,
                Some(SectionKind::Golden) => self.golden = content,
                _ => {}
            }
        }
        if let Some(&missing) = NEEDED.get(self.header.sections as usize) {
            return Err(FormatError::section(missing, "missing"));
        }
        let limit = if host_began { self.header.file_bytes } else { self.header.device_bytes };
        let last = end.checked_next_multiple_of(ALIGNMENT as u64);
        if last != Some(limit) || (!host_began && self.header.file_bytes != self.header.device_bytes) {
            return Err(FormatError::Header("file_bytes"));
        }
        self.check_padding(end, limit)?;
        #[cfg(any(test, feature = "signed"))]
        super::chunks::check_list(self.bytes, &self.header)?;
        #[cfg(feature = "seal")]
        super::seal::check_seal(self.bytes, &self.header)?;
        Ok(())
    }

    /// Checks that bytes `start` to `end` are zero, as far as they exist.
    pub(super) fn check_padding(&self, start: u64, end: u64) -> Result<(), FormatError> {
        let length = self.bytes.len() as u64;
        let place = |offset| self.located(offset).min(length) as usize;
        let (from, to) = (place(start), place(end));
        match self.bytes[from..to].iter().position(|&byte| byte != 0) {
            Some(at) => Err(FormatError::Padding(start + at as u64)),
            None => Ok(()),
        }
    }

    pub(super) fn check_spec(&mut self) -> Result<(), FormatError> {
        let content = self.layers;
        if content.len() < ModelRecord::BYTES {
            return Err(FormatError::section(SectionKind::Spec, "too short"));
        }
        let spec = ModelRecord::from_bytes(content);
        let require = |holds: bool, field: &'static str| if holds { Ok(()) } else { Err(FormatError::Spec(field)) };
        let later =
            |holds: bool, field| if holds { Ok(()) } else { Err(FormatError::LaterVersion(Record::Model, field)) };
        let kind = ModelKind::from_number(spec.kind).ok_or(FormatError::Spec("kind"))?;
        let output = Output::from_number(spec.output).ok_or(FormatError::Spec("output"))?;
        let norm = |number: u8| number == 0 || NormKind::from_number(number).is_some();
        require(norm(spec.embedding_norm), "embedding_norm")?;
        require(norm(spec.final_norm), "final_norm")?;
        let legal = match (output, CurveId::from_number(spec.head_activation)) {
            (Output::MaskedLanguageModel, curve) => curve.is_some(),
            (Output::Classifier, Some(_)) => kind == ModelKind::Encoder,
            _ => spec.head_activation == 0,
        };
        require(legal, "head_activation")?;
        require(HeadMatrix::from_number(spec.tied_head).is_some(), "tied_head")?;
        require(spec.learned_positions <= 1, "learned_positions")?;
        require(spec.strip_leading_space <= 1, "strip_leading_space")?;
        require(spec.wide_activations <= 1, "wide_activations")?;
        let exits = ExitHead::from_number(spec.exit_head);
        later(exits.is_some(), "exit_head")?;
        let may_exit = output == Output::Classifier && kind == ModelKind::Encoder && spec.final_norm == 0;
        require(exits == Some(ExitHead::LastLayer) || may_exit, "exit_head")?;
        later(Stacks::from_number(spec.stacks).is_some(), "stacks")?;
        let zero = spec.reserved == 0 && spec.reserved_first == [0; 10] && spec.reserved_end == [0; 19];
        later(zero, "reserved")?;
        require((1..=MAX_LAYERS).contains(&spec.layers), "layers")?;
        let size = |value: u32| (1..=MAX_DIMENSION).contains(&value);
        require(size(spec.hidden), "hidden")?;
        require(size(spec.vocabulary), "vocabulary")?;
        require(size(spec.context), "context")?;
        require(spec.token_types <= MAX_DIMENSION, "token_types")?;
        let width = match output {
            Output::Hidden => spec.output_width == spec.hidden,
            Output::Classifier | Output::TokenClassifier => size(spec.output_width),
            Output::Answers => spec.output_width == ANSWER_COLUMNS,
            _ => spec.output_width == spec.vocabulary,
        };
        require(width, "output_width")?;
        require(spec.bos == NONE || spec.bos < spec.vocabulary, "bos")?;
        require(spec.eos == NONE || spec.eos < spec.vocabulary, "eos")?;
        require(spec.epsilon >= 0.0 && spec.epsilon < 1.0, "epsilon")?;
        require(spec.embedding_scale > 0.0 && spec.embedding_scale < 1e6, "embedding_scale")?;
        require((1..=MAX_CHUNK as u32).contains(&spec.chunk), "chunk")?;
        require((1..=spec.chunk).contains(&spec.output_rows), "output_rows")?;
        let of_encoders = matches!(output, Output::TokenClassifier | Output::Answers);
        require(kind == ModelKind::Encoder || !of_encoders, "output")?;
        let second = output == Output::Answers && spec.token_types > 1;
        require(spec.separator == 0 || (second && spec.separator <= spec.vocabulary), "separator")?;
        let pooling = Pooling::from_number(spec.pooling);
        later(spec.pooling == 0 || pooling.is_some(), "pooling")?;
        later(spec.normalize <= 1, "normalize")?;
        let classifies = spec.classifies_mean() && exits == Some(ExitHead::LastLayer);
        require(spec.pooling == 0 || output == Output::Hidden || classifies, "pooling")?;
        let whole = kind == ModelKind::Encoder || pooling.is_none_or(|pooling| pooling == Pooling::Last);
        require(whole, "pooling")?;
        require(spec.normalize == 0 || spec.pooling().is_some(), "normalize")?;
        let capped = output == Output::LanguageModel && (1e-3..=1e6).contains(&spec.logit_cap);
        require(spec.logit_cap.to_bits() == 0 || capped, "logit_cap")?;
        let of_tokens = matches!(output, Output::LanguageModel | Output::MaskedLanguageModel);
        let narrow = kind == ModelKind::Encoder && !of_tokens && spec.embedding_width < spec.hidden;
        require(spec.embedding_width == 0 || narrow, "embedding_width")?;
        let dense = output == Output::MaskedLanguageModel
            || (output == Output::Classifier && kind == ModelKind::Encoder && exits == Some(ExitHead::LastLayer));
        let known = NormKind::from_number(spec.head_norm).is_some();
        require(spec.head_norm == 0 || (dense && known), "head_norm")?;
        let layers = &content[ModelRecord::BYTES..];
        if layers.len() != spec.layers as usize * LayerRecord::BYTES {
            return Err(FormatError::section(SectionKind::Spec, "length does not match the number of layers"));
        }
        self.spec = spec;
        self.layers = layers;
        let mut exit_heads = 0;
        for index in 0..spec.layers {
            let layer = self.layer(index as usize);
            check_layer(index, &layer, spec.hidden as usize, kind == ModelKind::Decoder)?;
            if layer.is_mixture() && !cfg!(feature = "mixtures") {
                return Err(FormatError::Feature("mixtures"));
            }
            // After the last layer the last head stands.
            let may_exit = exits == Some(ExitHead::Layers) && index + 1 < spec.layers;
            if layer.exit_head > u8::from(may_exit) {
                return Err(FormatError::Layer(index, "exit_head"));
            }
            exit_heads += u32::from(layer.exit_head);
        }
        require(exits == Some(ExitHead::LastLayer) || exit_heads > 0, "exit_head")?;
        if exit_heads > 0 && !cfg!(feature = "exits") {
            return Err(FormatError::Feature("exits"));
        }
        crate::plan::Plan::of(self).ok_or(FormatError::Spec("arena_bytes"))?.check(&spec)
    }

    pub(super) fn check_tensors(&self) -> Result<(), FormatError> {
        if !self.tensors.len().is_multiple_of(TensorRecord::BYTES) || self.tensors.len() / TensorRecord::BYTES > 1 << 20
        {
            return Err(FormatError::section(SectionKind::Tensors, "not a whole number of records"));
        }
        let (mut end, mut last_rank, mut second_parts) = (0u64, None, 0);
        for index in 0..self.tensor_count() {
            let record = self.tensor_record(index);
            let fault = |fault| FormatError::Tensor(index as u32, fault);
            let key = key_of(&record).ok_or(fault("unknown role, part or layer"))?;
            if key.role.in_layer() && u32::from(key.layer) >= self.spec.layers {
                return Err(fault("unknown layer"));
            }
            if last_rank == Some(key.rank()) {
                // A second part must directly follow its first part, which its storage identifies.
                check_second_part(&self.tensor_record(index - 1), &record).map_err(fault)?;
                second_parts += 1;
            } else if last_rank > Some(key.rank()) {
                return Err(fault("out of order"));
            }
            last_rank = Some(key.rank());
            let storage = Storage::from_id(record.storage).ok_or(fault("unknown storage"))?;
            let layout = match storage {
                Storage::F32 if record.layout == 0 => self.layout(),
                Storage::F32 => return Err(fault("an f32 tensor has a layout")),
                _ if record.layout == self.header.layout => self.layout(),
                _ => return Err(fault("layout differs from the header's")),
            };
            match Width::from_number(record.activation_bits) {
                Some(_) if storage == Storage::F32 => return Err(fault("an f32 tensor has an activation width")),
                Some(Width::Bits16) if self.spec.wide_activations == 0 => {
                    return Err(fault("16-bit activations that the specification has no memory for"));
                }
                None if record.activation_bits != 0 => return Err(fault("unknown activation width")),
                _ => {}
            }
            if record.sparsity != u8::from(storage.is_sparse()) {
                return Err(fault("unknown sparsity, or one that is not its storage's"));
            }
            if storage.is_sparse() && matches!(key.role, EmbedToken | EmbedPosition | EmbedType) {
                return Err(fault("a table that is looked up cannot be sparse"));
            }
            if record.rows > MAX_DIMENSION || record.columns > MAX_DIMENSION || record.rows == 0 || record.columns == 0
            {
                return Err(fault("illegal shape"));
            }
            let (rows, columns) = (record.rows as usize, record.columns as usize);
            if columns > storage.max_columns() {
                return Err(fault("more columns than its storage can sum in 32 bits"));
            }
            let bytes = tensor_bytes(storage, layout, rows, columns).ok_or(fault("too large"))?;
            if record.bytes != bytes as u64 || record.offset != end {
                return Err(fault("size or offset is not what shape and layout give"));
            }
            end = end.checked_add(record.bytes).ok_or(fault("too large"))?;
        }
        if self.weights_bytes() != Some(end) {
            return Err(FormatError::section(SectionKind::Weights, "length does not match the tensor table"));
        }
        let expected = crate::plan::tensors(self, &mut |key, rows, columns, quantized| {
            let index = self.first_record(key).ok_or(FormatError::MissingTensor(key))?;
            let record = self.tensor_record(index);
            let of_both = record.rows as usize + self.second_part(index).map_or(0, |second| second.rows as usize);
            let right = of_both == rows && record.columns as usize == columns;
            if !right || (record.storage != Storage::F32 as u8) != quantized {
                return Err(FormatError::TensorShape(key));
            }
            Ok(())
        })?;
        if expected + second_parts != self.tensor_count() {
            return Err(FormatError::section(SectionKind::Tensors, "holds tensors the specification does not use"));
        }
        self.check_experts()
    }

    /// Both matrices that read an expert's input read one rounding of it.
    fn check_experts(&self) -> Result<(), FormatError> {
        for index in (0..self.spec.layers as usize).filter(|&index| self.layer(index).is_mixture()) {
            let width = |role| {
                let key = TensorKey::layer(index, role, TensorPart::Weight);
                let record = self.first_record(key).ok_or(FormatError::MissingTensor(key))?;
                Ok((record, self.tensor_record(record).activation_bits))
            };
            let ((_, gate), (record, up)) = (width(TensorRole::Gate)?, width(TensorRole::Up)?);
            if gate != up {
                return Err(FormatError::Tensor(record as u32, "an expert's gate and up differ in activations"));
            }
        }
        Ok(())
    }

    pub(super) fn check_vocabulary(&self) -> Result<(), FormatError> {
        let count = self.spec.vocabulary as usize;
        let fault = FormatError::Vocabulary;
        let table = (count + 1) * 4;
        let text = self.vocabulary.len().checked_sub(table).ok_or(fault("too short"))?;
        let mut last = 0;
        for index in 0..=count {
            let offset = u32_at(self.vocabulary, index * 4).ok_or(fault("too short"))?;
            if offset < last || (index == 0 && offset != 0) {
                return Err(fault("offsets do not ascend"));
            }
            last = offset;
        }
        if last as usize != text { Err(fault("length does not match its offsets")) } else { Ok(()) }
    }

    /// Reads the optional text section.
    pub(super) fn read_text(&mut self) -> Result<(), FormatError> {
        if let Some(content) = self.single_device_section(SectionKind::Text)? {
            self.text = Some(TextTables::read(content, self.spec.vocabulary)?);
        }
        Ok(())
    }

    /// The bytes of an optional section; it must be the only one of its kind and in the device part.
    pub(super) fn single_device_section(&self, kind: SectionKind) -> Result<Option<&'a [u8]>, FormatError> {
        let fault = |fault| FormatError::section(kind, fault);
        let mut records = self.section_records().filter(|record| record.kind == kind as u32);
        let Some(record) = records.next() else { return Ok(None) };
        if records.next().is_some() {
            return Err(fault("there are two"));
        }
        if record.host != 0 {
            return Err(fault("is not in the device part"));
        }
        self.section(kind).map(Some).ok_or(fault("runs past the end of the file"))
    }

    pub(super) fn check_golden(&self) -> Result<(), FormatError> {
        let fault = FormatError::Golden;
        let count = u32_at(self.golden, 0).ok_or(fault("too short"))?;
        let mut at = GOLDEN_HEADER_BYTES;
        for _ in 0..count {
            let length = u32_at(self.golden, at).ok_or(fault("too short"))?;
            if length == 0 || length > self.spec.context {
                return Err(fault("a prompt is empty or longer than the context"));
            }
            for index in 0..length as usize {
                let token = u32_at(self.golden, at + 4 + index * 4).ok_or(fault("too short"))?;
                if token >= self.spec.vocabulary {
                    return Err(fault("a token is outside the vocabulary"));
                }
            }
            at += 4 + length as usize * 4;
        }
        if at != self.golden.len() || count == 0 { Err(fault("length does not match its prompts")) } else { Ok(()) }
    }
}

/// Checks that two records of one key are the parts of a split matrix: the first rows in 8 bits, the others in 4, and
/// rows that are tokens. The second part's tiles are not longer than the first's, so it can be numbered as if it began
/// with row 0.
fn check_second_part(first: &TensorRecord, second: &TensorRecord) -> Result<(), &'static str> {
    let role = TensorRole::from_number(first.role);
    if !matches!(role, Some(EmbedToken | LmHead)) || first.part != TensorPart::Weight as u8 {
        return Err("out of order: only the token table and the LM head may have two parts");
    }
    if (first.storage, second.storage) != (Storage::W8 as u8, Storage::W4G32 as u8) {
        return Err("the parts of a matrix are not w8 and then w4.g32");
    }
    if !(first.rows as usize).is_multiple_of(SPLIT_ROWS) {
        return Err("the first part of a matrix is not a multiple of 64 rows");
    }
    if first.columns != second.columns || first.activation_bits != second.activation_bits {
        return Err("the parts of a matrix differ in columns or activations");
    }
    Ok(())
}

fn check_layer(index: u32, layer: &LayerRecord, hidden: usize, decoder: bool) -> Result<(), FormatError> {
    let require = |holds: bool, field: &'static str| if holds { Ok(()) } else { Err(FormatError::Layer(index, field)) };
    let later =
        |holds: bool, field| if holds { Ok(()) } else { Err(FormatError::LaterVersion(Record::Layer(index), field)) };
    let size = |value: u32| (1..=MAX_DIMENSION).contains(&value);
    require(NormKind::from_number(layer.norm).is_some(), "norm")?;
    let placement =
        NormPlacement::from_number(layer.norm_placement).ok_or(FormatError::Layer(index, "norm_placement"))?;
    require(FfnKind::from_number(layer.ffn).is_some(), "ffn")?;
    require(CurveId::from_number(layer.activation).is_some(), "activation")?;
    later(LayerCacheFormat::from_number(layer.cache_format).is_some(), "cache_format")?;
    later(layer.exit_head <= 1, "exit_head")?;
    later(layer.stack == 0, "stack")?;
    later(layer.reserved_end == [0; 13], "reserved")?;
    require(size(layer.ffn_width), "ffn_width")?;
    let experts = u32::from(layer.experts);
    require(layer.experts <= MAX_EXPERTS && (experts == 0 || layer.is_gated()), "experts")?;
    require(layer.chosen <= layer.experts.min(MAX_CHOSEN), "chosen")?;
    require((layer.chosen == 0) == (experts == 0), "chosen")?;
    let stacks = hidden.is_multiple_of(EXPERT_STEP) && (layer.ffn_width as usize).is_multiple_of(EXPERT_STEP);
    require(experts == 0 || stacks, "experts")?;
    // The stacked rows of all experts are a dimension too.
    let widest = u64::from(layer.ffn_width).max(hidden as u64) * u64::from(experts);
    require(widest <= u64::from(MAX_DIMENSION), "experts")?;
    require(layer.epsilon >= 0.0 && layer.epsilon < 1.0, "epsilon")?;
    match Block::from_number(layer.block) {
        Some(Block::Attention) => {
            require(layer.key_map <= 1, "key_map")?;
            require(layer.query_key_norm == 0 || layer.norm == NormKind::Rms as u8, "query_key_norm")?;
            let known = layer.query_key_norm == 0 || QueryKeyNorm::from_number(layer.query_key_norm).is_some();
            require(known, "query_key_norm")?;
            // Side by side, the network's rows stand after attention's in the memory that a gate would take.
            require(!placement.is_side_by_side() || !layer.is_gated(), "ffn")?;
            require(size(layer.heads) && size(layer.key_value_heads), "heads")?;
            require(layer.heads.is_multiple_of(layer.key_value_heads), "key_value_heads")?;
            require(size(layer.head_dim) && layer.head_dim <= 133_000, "head_dim")?;
            require(u64::from(layer.heads) * u64::from(layer.head_dim) <= u64::from(MAX_DIMENSION), "head_dim")?;
            require(layer.window == 0 || size(layer.window), "window")?;
            let format = LayerCacheFormat::from_number(layer.cache_format).unwrap_or(LayerCacheFormat::OfHeader);
            require(!format.is_ring() || (decoder && layer.window > 0), "cache_format")?;
            if format.has_nibble_values() && !cfg!(feature = "nibble-values") {
                return Err(FormatError::Feature("nibble-values"));
            }
            require(!format.has_nibble_values() || layer.head_dim.is_multiple_of(2), "cache_format")?;
            let scale = layer.score_scale;
            require(scale.is_finite() && scale > 0.0 && scale < 1e30, "score_scale")?;
            let cap = layer.score_cap;
            require(cap.to_bits() == 0 || (1.0..1e30).contains(&cap), "score_cap")?;
            require(layer.taps == 0, "taps")
        }
        Some(Block::Conv) => {
            require(decoder, "block")?;
            require(placement == NormPlacement::Before, "norm_placement")?;
            require((1..=MAX_TAPS).contains(&layer.taps), "taps")?;
            require(layer.cache_format == LayerCacheFormat::OfHeader as u8, "cache_format")?;
            let of_attention = [layer.heads, layer.key_value_heads, layer.head_dim, layer.window];
            require(of_attention == [0; 4] && layer.score_scale.to_bits() == 0, "heads")?;
            require(layer.score_cap.to_bits() == 0, "score_cap")?;
            require([layer.rotary, layer.key_map, layer.query_key_norm] == [0; 3], "key_map")
        }
        None => require(false, "block"),
    }
}
