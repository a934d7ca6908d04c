# Defaults for a Raspberry Pi; an option on the command line goes before them.
# Without a budget a model that is larger than the memory would make the board swap.
export VAQUITA_MEMORY="${VAQUITA_MEMORY:-auto}"
# A card gains nothing from more reads at the same time, and one PCIe lane is full with two.
export VAQUITA_LANES="${VAQUITA_LANES:-2}"
