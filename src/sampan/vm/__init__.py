"""The runtime of pods with a kernel of their own: a small QEMU machine for each pod.

On the node it is a program with runc's command line (`__main__.py`), so that the shim of foreign
runtimes drives it as it drives runc. In the machine, the first process is our *agent* (`agent.py`),
which drives our own runtime, as it is on the node.

    shim -> sampan-vm create|start|exec|kill|delete
              the pod's first container is the machine: its process is QEMU (`machine.py`)
              every other process is a *stand-in* on the node (`standin.py`), which talks to the
              agent over a port of a virtual serial line (`frames.py`) and ends as the process in
              the machine does

    a container's root: a copy of its mount, read-only, moved into QEMU's mount namespace below the
    directory that is shared by 9p (`sharing.py`); in the machine an overlay with memory above it

The kernel and its modules are the distribution's. The first root file system (`initramfs.py`) has
this interpreter with the few modules that are needed, and nothing else of the node.
"""
