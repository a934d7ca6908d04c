# Defaults for a Jetson; an option on the command line goes before them.
# Processor and graphics share the memory: leave what others use alone.
export VAQUITA_MEMORY="${VAQUITA_MEMORY:-auto}"
# NVMe on four PCIe lanes takes four reads at the same time.
export VAQUITA_LANES="${VAQUITA_LANES:-4}"
