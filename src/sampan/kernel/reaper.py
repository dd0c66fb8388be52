"""The small init of a container: a static program of less than 800 bytes.

It blocks every signal, executes its arguments (without a first `--`) in a child, and from then on
does two things: what it is sent it sends on to the child, and what ends it reaps. It ends when the
child does, with its code, or with 128 and the number of the signal. The child has a process group
of its own, which has the terminal where there is one, so that a key such as ctrl-C reaches it once.

A name without a slash is looked up in the PATH of the environment. What cannot be executed is told
on standard error; the code is 127 where nothing was found and 126 otherwise.
"""

from __future__ import annotations

from sampan.kernel import elf
from sampan.kernel import numbers as n

# x86-64, assembled by hand. r12 is 8 KiB of the stack: the old mask, a full mask (8), a siginfo_t
# (16), a status or pid (144), and from 160 on a path. rbx is the child's argv, rbp its environment,
# r14d its pid, r13d the last error that says more than that nothing was found, or ENOENT.
_CODE = {
    "x86_64": (
        b"\x49\x89\xe7"  # mov r15, rsp
        b"\x48\x81\xec\x00\x22\x00\x00"  # sub rsp, 0x2200
        b"\x49\x89\xe4"  # mov r12, rsp
        b"\x48\x83\xc8\xff"  # or rax, -1
        b"\x49\x89\x44\x24\x08"  # mov [r12+8], rax
        b"\x31\xff"  # xor edi, edi
        b"\x49\x8d\x74\x24\x08"  # lea rsi, [r12+8]
        b"\x4c\x89\xe2"  # mov rdx, r12
        b"\xe8\x1f\x02\x00\x00"  # call mask
        b"\xbf\x24\x00\x00\x00"  # mov edi, 36
        b"\xbe\x01\x00\x00\x00"  # mov esi, 1
        b"\xb8\x9d\x00\x00\x00"  # mov eax, 157
        b"\x0f\x05"  # syscall
        b"\x49\x8d\x5f\x10"  # lea rbx, [r15+16]
        b"\x48\x8b\x3b"  # mov rdi, [rbx]
        b"\x48\x85\xff"  # test rdi, rdi
        b"\x74\x12"  # jz begin
        b"\x8b\x07"  # mov eax, [rdi]
        b"\x25\xff\xff\xff\x00"  # and eax, 0xffffff
        b"\x3d\x2d\x2d\x00\x00"  # cmp eax, 0x2d2d
        b"\x75\x04"  # jne begin
        b"\x48\x83\xc3\x08"  # add rbx, 8
        b"\xb8\x39\x00\x00\x00"  # begin: mov eax, 57
        b"\x0f\x05"  # syscall
        b"\x85\xc0"  # test eax, eax
        b"\x74\x79"  # jz child
        b"\x41\x89\xc6"  # mov r14d, eax
        b"\x0f\x88\xad\x01\x00\x00"  # js lost
        b"\x49\x8d\x7c\x24\x08"  # loop: lea rdi, [r12+8]
        b"\x49\x8d\x74\x24\x10"  # lea rsi, [r12+16]
        b"\x31\xd2"  # xor edx, edx
        b"\x41\xba\x08\x00\x00\x00"  # mov r10d, 8
        b"\xb8\x80\x00\x00\x00"  # mov eax, 128
        b"\x0f\x05"  # syscall
        b"\x85\xc0"  # test eax, eax
        b"\x78\xe3"  # js loop
        b"\x83\xf8\x11"  # cmp eax, 17
        b"\x74\x0e"  # je reap
        b"\x89\xc6"  # mov esi, eax
        b"\x44\x89\xf7"  # mov edi, r14d
        b"\xb8\x3e\x00\x00\x00"  # mov eax, 62
        b"\x0f\x05"  # syscall
        b"\xeb\xd0"  # jmp loop
        b"\x83\xcf\xff"  # reap: or edi, -1
        b"\x49\x8d\xb4\x24\x90\x00\x00\x00"  # lea rsi, [r12+144]
        b"\xba\x01\x00\x00\x00"  # mov edx, 1
        b"\x45\x31\xd2"  # xor r10d, r10d
        b"\xb8\x3d\x00\x00\x00"  # mov eax, 61
        b"\x0f\x05"  # syscall
        b"\x85\xc0"  # test eax, eax
        b"\x7e\xb2"  # jle loop
        b"\x44\x39\xf0"  # cmp eax, r14d
        b"\x75\xdd"  # jne reap
        b"\x41\x8b\x84\x24\x90\x00\x00\x00"  # mov eax, [r12+144]
        b"\x0f\xb6\xfc"  # movzx edi, ah
        b"\x83\xe0\x7f"  # and eax, 127
        b"\x74\x06"  # jz exit
        b"\x8d\xb8\x80\x00\x00\x00"  # lea edi, [rax+128]
        b"\xb8\xe7\x00\x00\x00"  # exit: mov eax, 231
        b"\x0f\x05"  # syscall
        b"\xb8\x27\x00\x00\x00"  # child: mov eax, 39
        b"\x0f\x05"  # syscall
        b"\x41\x89\x84\x24\x90\x00\x00\x00"  # mov [r12+144], eax
        b"\x31\xff"  # xor edi, edi
        b"\x31\xf6"  # xor esi, esi
        b"\xb8\x6d\x00\x00\x00"  # mov eax, 109
        b"\x0f\x05"  # syscall
        b"\x31\xff"  # xor edi, edi
        b"\xbe\x10\x54\x00\x00"  # mov esi, 0x5410
        b"\x49\x8d\x94\x24\x90\x00\x00\x00"  # lea rdx, [r12+144]
        b"\xb8\x10\x00\x00\x00"  # mov eax, 16
        b"\x0f\x05"  # syscall
        b"\xbf\x02\x00\x00\x00"  # mov edi, 2
        b"\x4c\x89\xe6"  # mov rsi, r12
        b"\x31\xd2"  # xor edx, edx
        b"\xe8\x2d\x01\x00\x00"  # call mask
        b"\x49\x8b\x0f"  # mov rcx, [r15]
        b"\x49\x8d\x6c\xcf\x10"  # lea rbp, [r15+rcx*8+16]
        b"\x41\xbd\x02\x00\x00\x00"  # mov r13d, 2
        b"\x4c\x8b\x03"  # mov r8, [rbx]
        b"\x4d\x85\xc0"  # test r8, r8
        b"\x0f\x84\xe4\x00\x00\x00"  # jz lost
        b"\x4c\x89\xc7"  # mov rdi, r8
        b"\x8a\x07"  # slash: mov al, [rdi]
        b"\x48\xff\xc7"  # inc rdi
        b"\x3c\x2f"  # cmp al, 0x2f
        b"\x0f\x84\x94\x00\x00\x00"  # je direct
        b"\x84\xc0"  # test al, al
        b"\x75\xef"  # jnz slash
        b"\x48\x89\xef"  # mov rdi, rbp
        b"\x4c\x8b\x0f"  # path: mov r9, [rdi]
        b"\x48\x83\xc7\x08"  # add rdi, 8
        b"\x4d\x85\xc9"  # test r9, r9
        b"\x0f\x84\x85\x00\x00\x00"  # jz failed
        b"\xb8\x50\x41\x54\x48"  # mov eax, 0x48544150
        b"\x41\x39\x01"  # cmp [r9], eax
        b"\x75\xe6"  # jne path
        b"\x41\x80\x79\x04\x3d"  # cmp byte ptr [r9+4], 0x3d
        b"\x75\xdf"  # jne path
        b"\x49\x83\xc1\x05"  # add r9, 5
        b"\x49\x8d\xbc\x24\xa0\x00\x00\x00"  # next: lea rdi, [r12+160]
        b"\x49\x8d\x94\x24\x00\x21\x00\x00"  # lea rdx, [r12+0x2100]
        b"\x41\x8a\x01"  # element: mov al, [r9]
        b"\x84\xc0"  # test al, al
        b"\x74\x13"  # jz name
        b"\x49\xff\xc1"  # inc r9
        b"\x3c\x3a"  # cmp al, 0x3a
        b"\x74\x0c"  # je name
        b"\x88\x07"  # mov [rdi], al
        b"\x48\xff\xc7"  # inc rdi
        b"\x48\x39\xd7"  # cmp rdi, rdx
        b"\x72\xe8"  # jb element
        b"\xeb\x46"  # jmp failed
        b"\x49\x8d\xb4\x24\xa0\x00\x00\x00"  # name: lea rsi, [r12+160]
        b"\x48\x39\xf7"  # cmp rdi, rsi
        b"\x74\x06"  # je bare
        b"\xc6\x07\x2f"  # mov byte ptr [rdi], 0x2f
        b"\x48\xff\xc7"  # inc rdi
        b"\x4c\x89\xc6"  # bare: mov rsi, r8
        b"\x8a\x0e"  # copy: mov cl, [rsi]
        b"\x88\x0f"  # mov [rdi], cl
        b"\x48\xff\xc6"  # inc rsi
        b"\x48\xff\xc7"  # inc rdi
        b"\x48\x39\xd7"  # cmp rdi, rdx
        b"\x73\x21"  # jae failed
        b"\x84\xc9"  # test cl, cl
        b"\x75\xed"  # jnz copy
        b"\x50"  # push rax
        b"\x49\x8d\xbc\x24\xa0\x00\x00\x00"  # lea rdi, [r12+160]
        b"\xe8\x5b\x00\x00\x00"  # call execute
        b"\x58"  # pop rax
        b"\x84\xc0"  # test al, al
        b"\x75\x9a"  # jnz next
        b"\xeb\x08"  # jmp failed
        b"\x4c\x89\xc7"  # direct: mov rdi, r8
        b"\xe8\x4c\x00\x00\x00"  # call execute
        b"\x48\x8d\x35\x7b\x00\x00\x00"  # failed: lea rsi, [rip+text]
        b"\xba\x1c\x00\x00\x00"  # mov edx, offset text_size
        b"\xe8\x64\x00\x00\x00"  # call say
        b"\x4c\x89\xc6"  # mov rsi, r8
        b"\x48\x83\xca\xff"  # or rdx, -1
        b"\x48\xff\xc2"  # count: inc rdx
        b"\x41\x80\x3c\x10\x00"  # cmp byte ptr [r8+rdx], 0
        b"\x75\xf6"  # jne count
        b"\xe8\x4e\x00\x00\x00"  # call say
        b"\x48\x8d\x35\x70\x00\x00\x00"  # lea rsi, [rip+end]
        b"\xba\x01\x00\x00\x00"  # mov edx, 1
        b"\xe8\x3d\x00\x00\x00"  # call say
        b"\xbf\x7e\x00\x00\x00"  # lost: mov edi, 126
        b"\x41\x83\xfd\x02"  # cmp r13d, 2
        b"\x75\x02"  # jne quit
        b"\xff\xc7"  # inc edi
        b"\xb8\xe7\x00\x00\x00"  # quit: mov eax, 231
        b"\x0f\x05"  # syscall
        b"\x48\x89\xde"  # execute: mov rsi, rbx
        b"\x48\x89\xea"  # mov rdx, rbp
        b"\xb8\x3b\x00\x00\x00"  # mov eax, 59
        b"\x0f\x05"  # syscall
        b"\x83\xf8\xec"  # cmp eax, -20
        b"\x74\x08"  # je missing
        b"\x83\xf8\xfe"  # cmp eax, -2
        b"\x74\x03"  # je missing
        b"\x41\x89\xc5"  # mov r13d, eax
        b"\xc3"  # missing: ret
        b"\x41\xba\x08\x00\x00\x00"  # mask: mov r10d, 8
        b"\xb8\x0e\x00\x00\x00"  # mov eax, 14
        b"\x0f\x05"  # syscall
        b"\xc3"  # ret
        b"\xbf\x02\x00\x00\x00"  # say: mov edi, 2
        b"\xb8\x01\x00\x00\x00"  # mov eax, 1
        b"\x0f\x05"  # syscall
        b"\xc3"  # ret
        b"sampan-init: cannot execute "  # text
        b"\n"  # end
    )
}


def is_available() -> bool:
    """Whether there is such a program for this architecture."""
    return n.MACHINE in _CODE


def image() -> bytes:
    """The program."""
    return elf.program(_CODE[n.MACHINE], n.MACHINE)
