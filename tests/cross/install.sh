# Sourced by `run`: brings what a device needs to the machine and says what it could not bring. Emulators, linkers and
# node come from Debian's packages; the standard library of a target from rustup, or, where rustup does not reach its
# server, from Debian's Rust (`debian-rust`). Nothing is installed that is already there.

# Reasons by target or tool, for whatever asks for it: ${missing[aarch64-unknown-linux-gnu]}.
declare -A missing=()

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo -n "$@"; else return 1; fi
}

# packages COMMAND=PACKAGE[,PACKAGE]…: installs the packages of commands that are not there, in one go.
packages() {
    local pair wanted=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || IFS=, read -ra more <<<"${pair#*=}" && wanted+=("${more[@]}")
        more=()
    done
    [ ${#wanted[@]} -gt 0 ] || return 0
    say "installing ${wanted[*]}"
    local log=$cache/apt.log
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${wanted[@]}")
    if command -v apt-get >/dev/null; then
        as_root "${install[@]}" >"$log" 2>&1 || { as_root apt-get -qq update >>"$log" 2>&1 && as_root "${install[@]}" >>"$log" 2>&1; } ||
            say "apt-get install failed: $(tail -n 1 "$log")"
    fi
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing[${pair%%=*}]="no ${pair%%=*} (Debian: ${pair#*=}) and it cannot be installed"
    done
}

# rust TARGET…: the standard library of every target, from rustup or from Debian.
rust() {
    local target wanted=()
    for target in "$@"; do
        [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] || wanted+=("$target")
    done
    [ ${#wanted[@]} -gt 0 ] || return 0
    say "rustup target add ${wanted[*]}"
    if command -v rustup >/dev/null && timeout 300 rustup target add "${wanted[@]}" >"$cache/rustup.log" 2>&1; then
        return 0
    fi
    say "rustup cannot; building from Debian's Rust sources instead"
    if "$here/debian-rust" "$cache/rust" "$@" >"$cache/debian-rust.log" 2>&1; then
        export RUSTC=$cache/rust/rustc RUSTDOC=$cache/rust/rustdoc
        return 0
    fi
    for target in "${wanted[@]}"; do
        missing[$target]="no standard library for $target: rustup ($cache/rustup.log) and Debian ($cache/debian-rust.log) both failed"
    done
}
