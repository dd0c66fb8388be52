"""The annotation by which a container says whose machine it is in: the bundle of that."""

MACHINE = "io.sampan.vm.machine"
