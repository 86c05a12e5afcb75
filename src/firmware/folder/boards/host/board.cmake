# This machine, with the artifact of whatever target: layouts that no kernel here is made for run on the scalar one, with the same
# bits. The object is linked where it is for this machine; else the assembler takes the artifact in.
set(SLM_RUST_FEATURES std)
cmake_host_system_information(RESULT processor QUERY OS_PLATFORM)
if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/artifact/model-${processor}.o)
    set(SLM_SOURCES boards/host/port.c artifact/model-${processor}.o)
else()
    set(SLM_SOURCES boards/host/port.c artifact/model.S)
endif()
set(SLM_LIBRARIES pthread dl m)
