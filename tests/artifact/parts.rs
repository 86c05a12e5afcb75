//! Matrices in two parts: what the compiler writes, and every rule of such records broken once.

use super::sections::{Sections, TENSORS};
use super::{exercise, judged, tiny, tiny_in_parts};
use crate::fixture::Family;
use slm_runtime::format::FormatError;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::tensor::{TensorKey, TensorPart, TensorRecord, TensorRole};
use slm_runtime::kernels::scalar;
use slm_runtime::layout::{Layout, Storage};
use slmc::artifact::inspect;
use slmc::model::id::{LinearId, ParameterId, Role};
use slmc::model::scheme::{Preset, QuantScheme};
use slmc::model::weights::Parameter;

fn records(sections: &Sections) -> Vec<TensorRecord> {
    sections.all[TENSORS].2.chunks_exact(TensorRecord::BYTES).map(TensorRecord::from_bytes).collect()
}

/// The artifact with other records, its weights tiled as they say and all digests right.
fn with_records(artifact: &[u8], change: impl FnOnce(&mut Vec<TensorRecord>)) -> Vec<u8> {
    let mut sections = Sections::of(artifact);
    let mut records = records(&sections);
    change(&mut records);
    sections.all[TENSORS].2 = records.iter().flat_map(TensorRecord::to_bytes).collect();
    sections.tile_again(1 << 18);
    sections.file(|_| {})
}

#[test]
fn the_compiler_writes_what_readers_take() {
    for (family, roles) in [
        (Family::Llama, &[TensorRole::EmbedToken, TensorRole::LmHead][..]),
        (Family::TiedLlama, &[TensorRole::EmbedToken]),
        (Family::Bert, &[TensorRole::EmbedToken]),
    ] {
        let artifact = tiny_in_parts(family).bytes;
        assert_eq!(judged(&artifact), Ok(()), "{}", family.name());
        let view = ArtifactView::open(&artifact).expect("it is sound");
        assert_eq!((view.header().major, view.header().minor), (1, 2));
        assert_eq!(exercise(&view), Ok(()));
        for &role in roles {
            let of_role: Vec<TensorRecord> =
                records(&Sections::of(&artifact)).into_iter().filter(|record| record.role == role as u8).collect();
            let shape = |record: &TensorRecord| (record.storage, record.rows, record.columns, record.activation_bits);
            let expected = [(Storage::W8 as u8, 64, 8, 8), (Storage::W4G32 as u8, 8, 8, 8)];
            assert_eq!(of_role.iter().map(shape).collect::<Vec<_>>(), expected, "{} {role:?}", family.name());
            // Who expects one piece is told that there is none.
            let key = TensorKey::global(role, TensorPart::Weight);
            assert_eq!(view.matrix(key).err(), Some(FormatError::TensorShape(key)));
        }
        let names = inspect::tensors(&view, None);
        assert_eq!((names[0].name.as_str(), names[1].name.as_str()), ("embed.token.weight", "embed.token.weight"));
    }
    let whole = tiny(Family::Llama).bytes;
    assert_eq!(
        ArtifactView::open(&whole).expect("it is sound").header().minor,
        1,
        "files without parts stay as they were"
    );
}

/// Every row of both parts, in every layout, is what its integers stand for.
#[test]
fn rows_equal_the_dequantized_matrix() {
    let (rows, split) = (150, QuantScheme::Split { wide_rows: 128 });
    let model = crate::fixture::quantized(Family::TiedLlama, crate::fixture::Size::SMALL, Preset::W4);
    let model = crate::fixture::with_tokens(model, rows, split);
    let id = ParameterId::weight(LinearId::global(Role::TokenEmbedding));
    let Some(Parameter::Quantized(matrix)) = model.parameters.get(&id) else { panic!("it is quantized") };
    assert_eq!((matrix.scheme, matrix.multiplied_rows()), (split, 22));
    let expected = matrix.dequantize();
    for layout in Layout::ALL {
        let device = slmc::target::Target::unlimited("test", layout);
        let artifact = crate::fixture::compiled(&model, &device, None).bytes;
        let view = ArtifactView::open(&artifact).expect("it is sound");
        let parts = view.parts(TensorKey::global(TensorRole::EmbedToken, TensorPart::Weight)).expect("it is there");
        let mut row = vec![0.0; matrix.columns()];
        for n in 0..rows {
            scalar::row(parts.of_row(n), n, &mut row);
            assert!(expected.row(n).iter().eq(&row), "row {n} {}", layout.name());
        }
    }
}

/// Records 0 and 1 are the token table's parts.
#[test]
fn every_rule_of_parts_is_checked() {
    let artifact = tiny_in_parts(Family::Llama).bytes;
    assert_eq!(with_records(&artifact, |_| {}), artifact);
    let head = |records: &[TensorRecord]| {
        records.iter().position(|record| record.role == TensorRole::LmHead as u8).expect("it has a head of its own")
    };
    type Change<'a> = Box<dyn Fn(&mut Vec<TensorRecord>) + 'a>;
    let key = |role| TensorKey::global(role, TensorPart::Weight);
    let tensor = FormatError::Tensor;
    let order = "out of order: only the token table and the LM head may have two parts";
    let storage = "the parts of a matrix are not w8 and then w4.g32";
    let columns = "the parts of a matrix differ in columns or activations";
    let cases: Vec<(&str, Change<'_>, FormatError)> = vec![
        (
            "60 and 12 rows",
            Box::new(|all| (all[0].rows, all[1].rows) = (60, 12)),
            tensor(1, "the first part of a matrix is not a multiple of 64 rows"),
        ),
        ("exchanged", Box::new(|all| all.swap(0, 1)), tensor(1, storage)),
        ("both in 8 bits", Box::new(|all| all[1].storage = Storage::W8 as u8), tensor(1, storage)),
        ("both in 4 bits", Box::new(|all| all[0].storage = Storage::W4G32 as u8), tensor(1, storage)),
        ("three", Box::new(|all| all.insert(2, TensorRecord { rows: 4, ..all[1] })), tensor(2, storage)),
        ("other columns", Box::new(|all| all[1].columns = 4), tensor(1, columns)),
        ("other activations", Box::new(|all| all[1].activation_bits = 0), tensor(1, columns)),
        ("a row too few", Box::new(|all| all[1].rows = 7), FormatError::TensorShape(key(TensorRole::EmbedToken))),
        ("64 rows too many", Box::new(|all| all[0].rows = 128), FormatError::TensorShape(key(TensorRole::EmbedToken))),
        ("no second part", Box::new(|all| _ = all.remove(1)), FormatError::TensorShape(key(TensorRole::EmbedToken))),
        (
            "no second part of the head",
            Box::new(|all| _ = all.remove(head(all) + 1)),
            FormatError::TensorShape(key(TensorRole::LmHead)),
        ),
        (
            "another matrix in two parts",
            Box::new(|all| {
                let query = all.iter().position(|record| record.role == TensorRole::Query as u8).expect("there is one");
                all[query].storage = Storage::W8 as u8;
                all.insert(query + 1, TensorRecord { storage: Storage::W4G32 as u8, ..all[query] });
            }),
            tensor(4, order),
        ),
        (
            "a norm twice",
            Box::new(|all| {
                let norm = all.iter().position(|record| record.role == TensorRole::AttentionNorm as u8);
                let norm = norm.expect("there is one");
                all.insert(norm, all[norm]);
            }),
            tensor(3, order),
        ),
    ];
    for (what, change, expected) in cases {
        let file = with_records(&artifact, change);
        assert_eq!(ArtifactView::open(&file).err(), Some(expected), "{what}");
    }
}
