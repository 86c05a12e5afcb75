# Sourced by `run --kernels`: counts single kernels on the emulated devices, and whole tokens of models of several shapes
# beside them, and makes src/compile/detail/instructions.json of it (fit.py).
#
#     kernels.tsv   device kernel triple isa layout flags unit first second instructions-per-call
#     tokens.tsv    device kernel artifact instructions-per-token
#
# Every unit of work (probe/check/src/work.rs) runs with one call and with three, between marks at which the plugin says how
# many instructions there were; half the difference is the cost of one call. Nothing here takes the time of anything.

kernels_tsv=$cache/kernels.tsv
tokens_tsv=$cache/tokens.tsv

# measure_on NAME HOW TABLE TRIPLE ISA FLAGS: every unit on one table of a device, by its number; 0 is the best.
measure_on() {
    local name=$1 how=$2 table=$3 triple=$4 isa=$5 flags=$6 answer kernel layout
    if [ "$how" = wasm ]; then
        "$cache/wasmtime/bin/python" "$here/wasm_count.py" "${programs[$program]}/web.wasm" work "$table" "$cache/units" |
            while read -r kernel layout unit; do
                printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$name" "$kernel" "$triple" "$isa" "$layout" "$flags" "${unit// /$'\t'}"
            done >>"$kernels_tsv"
        say "$name: kernels of table $table"
        return 0
    fi
    plugin=(-plugin "$cache/insn_count.so" -d plugin)
    answer=$("emulate_$how" work "$table" 2>&1 | tr -d '\r')
    kernel=$(field kernel "$answer") layout=$(field layout "$answer")
    if [ "$(grep -c '^mark ' <<<"$answer")" != $((2 * $(wc -l <"$cache/units") + 1)) ]; then
        fail "$name: no counts of kernel table $table: $(tail -n 3 <<<"$answer")"
        return 0
    fi
    grep '^mark ' <<<"$answer" | awk -v head="$name\t$kernel\t$triple\t$isa\t$layout\t$flags" -v units="$cache/units" '
        { at[NR] = $2 }
        END {
            for (n = 1; (getline line < units) > 0; n += 2) {
                split(line, unit, " ")
                printf "%s\t%s\t%s\t%s\t%d\n", head, unit[2], unit[3], unit[4], (at[n + 2] - at[n + 1] - (at[n + 1] - at[n])) / 2
            }
        }' >>"$kernels_tsv"
    say "$name: kernels of $kernel"
}

# shape NAME KEY VALUE…: a configuration like tiny.json with other numbers, trained for an instant: what matters is its shape.
shape() {
    local name=$1 config=$artifacts/shape-$1/config.json
    shift
    mkdir -p "$artifacts/shape-$name"
    cp "$here/tiny.json" "$config"
    sed -i 's/"max_position_embeddings": 32/"max_position_embeddings": 256/' "$config"
    while [ $# -gt 0 ]; do
        sed -i "s/\"$1\": [0-9]*/\"$1\": $2/" "$config"
        shift 2
    done
    make train "$config" --tokenizer "$artifacts/shape-tokenizer" --data "$text" --tokens 64 --window 32 --batch 2 \
        -o "$artifacts/shape-$name-dense"
    make quantize "$artifacts/shape-$name-dense" --scheme w8 --method rtn --tune 0 -o "$artifacts/shape-$name-w8"
}

# The models of the fit, whose layers and heads differ, and those that it is checked with, in the order of tokens.tsv.
shapes=(shape-a-w8 shape-b-w8 shape-c-w8 shape-d-w8)
checks=(dense-w8 dense-w4 sparse-w8 sparse-w4 teacher-w8 teacher-w4)
make_shapes() {
    make tokenizer train --vocab 262 --data "$text" -o "$artifacts/shape-tokenizer"
    shape a hidden_size 64 intermediate_size 128 num_hidden_layers 1 num_attention_heads 4 num_key_value_heads 2
    shape b hidden_size 64 intermediate_size 128 num_hidden_layers 4 num_attention_heads 4 num_key_value_heads 2
    shape c hidden_size 64 intermediate_size 128 num_hidden_layers 4 num_attention_heads 8 num_key_value_heads 8 head_dim 8
    shape d hidden_size 128 intermediate_size 256 num_hidden_layers 2 num_attention_heads 8 num_key_value_heads 4
    local scheme
    for scheme in w8 w4; do
        make quantize "$root/recipes/quickstart/teacher" --scheme "$scheme" --method rtn --tune 0 -o "$artifacts/teacher-$scheme"
    done
}

# tokens_on NAME KERNEL TARGET HOW: whole tokens of all these models.
tokens_on() {
    local name=$1 kernel=$2 target=$3 how=$4 kind path
    plugin=(-plugin "$cache/insn_count.so" -d plugin)
    for kind in "${shapes[@]}" "${checks[@]}"; do
        path=$(artifact "$kind" "$target") || continue
        printf '%s\t%s\t%s\t%s\n' "$name" "$kernel" "$path" "$(instructions "$how" "$path")" >>"$tokens_tsv"
    done
    say "$name: tokens of $kernel"
}

# What a program was built for, as target files say it: triple and instruction set, and further flags.
declare -A triples=([aarch64]=aarch64-unknown-linux-gnu [riscv64]=riscv64gc-unknown-linux-gnu [wasm]=wasm32-unknown-unknown
    [wasm-simd128]=wasm32-unknown-unknown [m3]=thumbv7m-none-eabi [m4]=thumbv7em-none-eabihf [m7]=thumbv7em-none-eabihf
    [m33]=thumbv8m.main-none-eabihf [m55]=thumbv8m.main-none-eabihf)
declare -A isas=([dotprod]=dotprod [i8mm]=i8mm [rvv]=v [simd128]=simd128 [dsp]=dsp [helium]=mve [scalar]=scalar)

# kernels_on NAME TARGET HOW TABLE…: the best table of a device and the scalar one, and tokens with each.
kernels_on() {
    local name=$1 target=$2 how=$3 scalar_target=generic
    shift 3
    local tables=("$@") flags=
    [ "$how" != board ] || flags="-Ctarget-cpu=$name"
    if [ ${#tables[@]} -gt 1 ]; then
        measure_on "$name" "$how" 0 "${triples[$program]}" "${isas[${tables[0]}]}" "$flags"
        tokens_on "$name" "${tables[0]}" "$target" "$how"
    fi
    [ "$target" != wasm32 ] || scalar_target=cortex-a76
    measure_on "$name" "$how" $((${#tables[@]} - 1)) "${triples[$program]}" scalar "$flags"
    tokens_on "$name" scalar "$scalar_target" "$how"
}
