//! GGUF files written byte by byte, sound or not: a tiny Llama whose keys and tensors a test changes.

/// The value of a key.
#[derive(Clone, Debug)]
pub(crate) enum Field {
    U32(u32),
    F32(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// A type's number and bytes, whatever they say.
    Raw(u32, Vec<u8>),
}

/// A tensor's description, and its data.
#[derive(Clone, Debug)]
pub(crate) struct DraftTensor {
    pub(crate) name: String,
    /// The fastest first.
    pub(crate) dimensions: Vec<u64>,
    pub(crate) kind: u32,
    /// Where the data stands; absent: where it belongs.
    pub(crate) offset: Option<u64>,
    pub(crate) data: Vec<u8>,
}

/// A file.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) version: u32,
    pub(crate) keys: Vec<(String, Field)>,
    pub(crate) tensors: Vec<DraftTensor>,
    /// The numbers of tensors and of keys, where they lie.
    pub(crate) counts: Option<(u64, u64)>,
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn array<T>(bytes: &mut Vec<u8>, kind: u32, values: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    bytes.extend(9u32.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend((values.len() as u64).to_le_bytes());
    values.iter().for_each(|value| write(bytes, value));
}

impl Field {
    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Field::U32(number) => bytes.extend([4u32.to_le_bytes(), number.to_le_bytes()].concat()),
            Field::F32(number) => bytes.extend([6u32.to_le_bytes(), number.to_le_bytes()].concat()),
            Field::Flag(flag) => bytes.extend([&7u32.to_le_bytes()[..], &[u8::from(*flag)]].concat()),
            Field::Text(value) => {
                bytes.extend(8u32.to_le_bytes());
                text(bytes, value);
            }
            Field::Texts(values) => array(bytes, 8, values, |bytes, value| text(bytes, value)),
            Field::I32s(values) => array(bytes, 5, values, |bytes, value| bytes.extend(value.to_le_bytes())),
            Field::F32s(values) => array(bytes, 6, values, |bytes, value| bytes.extend(value.to_le_bytes())),
            Field::Raw(kind, value) => {
                bytes.extend(kind.to_le_bytes());
                bytes.extend(value);
            }
        }
    }
}

/// Hidden width, rows of the token table, width of the feed-forward network.
pub(crate) const HIDDEN: u64 = 32;
const VOCABULARY: u64 = 8;
const WIDTH: u64 = 64;
/// The number of Q8_0.
const Q8_0: u32 = 8;

/// Blocks of Q8_0 whose integers differ from row to row.
fn blocks(count: u64) -> Vec<u8> {
    let block = |number: u64| {
        // 0x2000 is 2^-7.
        let quants = (0..32).map(move |n| (number * 11 + n * 7) as u8);
        [0x00, 0x20].into_iter().chain(quants)
    };
    (0..count).flat_map(block).collect()
}

impl Draft {
    /// A Llama of one layer with two heads, every matrix in Q8_0, without a tokenizer.
    pub(crate) fn llama() -> Self {
        Draft::with_vocabulary(VOCABULARY)
    }

    /// As [`Draft::llama`], with this many rows in its token table.
    pub(crate) fn with_vocabulary(rows: u64) -> Self {
        let mut draft = Draft { version: 3, keys: Vec::new(), tensors: Vec::new(), counts: None }
            .with("general.architecture", Field::Text("llama".to_owned()))
            .with("llama.block_count", Field::U32(1))
            .with("llama.context_length", Field::U32(16))
            .with("llama.embedding_length", Field::U32(HIDDEN as u32))
            .with("llama.feed_forward_length", Field::U32(WIDTH as u32))
            .with("llama.attention.head_count", Field::U32(2))
            .with("llama.attention.layer_norm_rms_epsilon", Field::F32(1e-5))
            .with("tokenizer.ggml.model", Field::Text("none".to_owned()));
        for (name, dimensions) in [
            ("token_embd.weight", [HIDDEN, rows]),
            ("blk.0.attn_q.weight", [HIDDEN, HIDDEN]),
            ("blk.0.attn_k.weight", [HIDDEN, HIDDEN]),
            ("blk.0.attn_v.weight", [HIDDEN, HIDDEN]),
            ("blk.0.attn_output.weight", [HIDDEN, HIDDEN]),
            ("blk.0.ffn_gate.weight", [HIDDEN, WIDTH]),
            ("blk.0.ffn_up.weight", [HIDDEN, WIDTH]),
            ("blk.0.ffn_down.weight", [WIDTH, HIDDEN]),
        ] {
            let data = blocks(dimensions[0] / 32 * dimensions[1]);
            let (name, dimensions) = (name.to_owned(), dimensions.to_vec());
            draft.tensors.push(DraftTensor { name, dimensions, kind: Q8_0, offset: None, data });
        }
        for name in ["blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"] {
            let data = 1f32.to_le_bytes().repeat(HIDDEN as usize);
            let name = name.to_owned();
            draft.tensors.push(DraftTensor { name, dimensions: vec![HIDDEN], kind: 0, offset: None, data });
        }
        draft
    }

    /// With another value of a key, or a further key.
    pub(crate) fn with(self, key: &str, value: Field) -> Self {
        let mut draft = self.without(key);
        draft.keys.push((key.to_owned(), value));
        draft
    }

    /// Without a key.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.keys.retain(|(other, _)| other != key);
        self
    }

    /// With a tensor changed.
    pub(crate) fn changed(mut self, name: &str, change: impl FnOnce(&mut DraftTensor)) -> Self {
        let tensor = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        change(tensor.unwrap_or_else(|| panic!("no tensor {name}")));
        self
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        let (tensors, keys) = self.counts.unwrap_or((self.tensors.len() as u64, self.keys.len() as u64));
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        for (key, value) in &self.keys {
            text(&mut bytes, key);
            value.write(&mut bytes);
        }
        let mut data: Vec<u8> = Vec::new();
        for tensor in &self.tensors {
            text(&mut bytes, &tensor.name);
            bytes.extend((tensor.dimensions.len() as u32).to_le_bytes());
            tensor.dimensions.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(data);
        bytes
    }
}
