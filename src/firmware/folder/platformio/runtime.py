"""Has cargo build the runtime's static library, by the custom_slm_… options of the environment, and links it."""

import os
import subprocess

Import("env")  # noqa: F821, given by PlatformIO

root = env.subst("$PROJECT_DIR")  # noqa: F821
target = env.GetProjectOption("custom_slm_rust_target", "")  # noqa: F821
built = os.path.join(root, "build", "platformio-runtime")
command = ["cargo", "build", "--release", "--locked", "--offline", "--manifest-path", os.path.join(root, "runtime", "Cargo.toml")]
command += ["--target-dir", built, "--features", env.GetProjectOption("custom_slm_rust_features", "panic-handler")]  # noqa: F821
if target:
    command += ["--target", target]
flags = env.GetProjectOption("custom_slm_rust_flags", "")  # noqa: F821
subprocess.run(command, check=True, env=dict(os.environ, RUSTFLAGS=flags))
env.Append(  # noqa: F821
    LIBPATH=[os.path.join(built, target, "release")],
    LIBS=["slm_runtime"],
    CPPPATH=[os.path.join(root, "include")],
    ASPPFLAGS=['-DSLM_ARTIFACT_FILE=\\"%s\\"' % os.path.join(root, "artifact", "model.slm")],
)
