//! The kernels that this machine can run, and the layout that they are made for.

use slm_runtime::kernels::Kernels;
use slm_runtime::layout::Layout;

/// The kernels of this machine.
pub fn kernels() -> &'static Kernels {
    slm_runtime::kernels::best(layout())
}

/// The kernels of this machine for artifacts in a layout: the table made for it where there is one. In another layout the
/// products run on the scalar kernel, and everything else on the machine's own table.
pub fn kernels_for(layout: Layout) -> &'static Kernels {
    let made_for_it = slm_runtime::kernels::best(layout);
    if made_for_it.layout == Some(layout) { made_for_it } else { kernels() }
}

/// What reports call [`kernels_for`] a layout.
pub fn kernel_name(layout: Layout) -> String {
    let kernels = kernels_for(layout);
    match kernels.layout {
        Some(own) if own != layout => format!("{}, products scalar: made for {}", kernels.name, own.name()),
        _ => kernels.name.to_owned(),
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
