/* The artifact by the assembler, for tool chains whose machine model.o is not for. The path is that from the folder's root. */
#ifndef SLM_ARTIFACT_FILE
#define SLM_ARTIFACT_FILE "artifact/model.slm"
#endif

    .section .rodata.slm_artifact, "a"
    .balign 64
    .global slm_artifact
slm_artifact:
    .incbin SLM_ARTIFACT_FILE
slm_artifact_end:
    .balign 8
    .global slm_artifact_bytes
slm_artifact_bytes:
    .long slm_artifact_end - slm_artifact, 0

#if defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
