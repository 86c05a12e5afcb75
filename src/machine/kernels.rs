//! The kernels that this machine can run, and the layout that they are made for.

use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::kernels::{Kernels, VectorStorage};
use slm_runtime::layout::{Coding, Layout, STORAGES, Storage, StorageDef};

/// The kernels of this machine.
pub fn kernels() -> &'static Kernels {
    slm_runtime::kernels::best(layout())
}

/// The kernels of this machine for artifacts in a layout: the table made for it where there is one. In another layout
/// the products run on the scalar kernel, and everything else on the machine's own table.
pub fn kernels_for(layout: Layout) -> &'static Kernels {
    let made_for_it = slm_runtime::kernels::best(layout);
    if made_for_it.layout == Some(layout) { made_for_it } else { kernels() }
}

/// Name in reports of the kernels that run an artifact: products of another layout, and of storages that the table of
/// vector instructions lacks, are scalar.
pub fn kernel_name(view: &ArtifactView<'_>) -> String {
    let kernels = kernels_for(view.layout());
    match kernels.layout {
        None => kernels.name.to_owned(),
        Some(own) if own != view.layout() => format!("{}, products scalar: made for {}", kernels.name, own.name()),
        Some(_) => {
            let records = (0..view.tensor_count()).map(|index| view.tensor_record(index));
            let stored: Vec<Storage> = records.filter_map(|record| Storage::from_id(record.storage)).collect();
            let scalar = |def: &&StorageDef| {
                stored.contains(&def.storage) && def.coding != Coding::F32 && VectorStorage::of(def.storage).is_none()
            };
            let names: Vec<&str> = STORAGES.iter().filter(scalar).map(|def| def.name).collect();
            match names.is_empty() {
                true => kernels.name.to_owned(),
                false => format!("{}, products of {} scalar", kernels.name, names.join(" and ")),
            }
        }
    }
}

/// The layout that the kernels of this machine are made for.
pub fn layout() -> Layout {
    #[cfg(target_arch = "aarch64")]
    {
        let i8mm = std::arch::is_aarch64_feature_detected!("i8mm");
        return if i8mm { Layout::R8K8 } else { Layout::R8K4 };
    }
    #[cfg(not(target_arch = "aarch64"))]
    Layout::R8K4Offset8
}
