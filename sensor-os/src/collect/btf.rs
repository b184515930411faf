//! Where fields lie in the kernel's structures, read from the kernel's own type information (BTF).
//!
//! Pure but for `KernelLayouts`, which reads the file. Only structs, unions and the names of
//! their members are looked at. Nothing panics on odd bytes; a field that is not found is an
//! error, and the caller then does without the tracer.

use std::io;
use std::sync::OnceLock;

use crate::sys::bpf::{ExecLayout, SenderLayout, SocketLayout};
use crate::sys::native;

/// How deep anonymous members are followed: the kernel's own nest three deep.
const DEPTH_MAX: u32 = 8;

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNCTION_PROTOTYPE: u32 = 13;
const KIND_VARIABLE: u32 = 14;
const KIND_SECTION: u32 = 15;
const KIND_DECLARATION_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Type information of a kernel.
struct TypeInfo<'a> {
    types: &'a [u8],
    names: &'a [u8],
    /// Offset in `types` of each type, by id; id 0 is void.
    offsets: Vec<u32>,
}

impl<'a> TypeInfo<'a> {
    /// Reads the index of `blob`; `None` when it is not BTF in this machine's byte order.
    fn parse(blob: &'a [u8]) -> Option<Self> {
        const MAGIC: u16 = 0xeb9f;
        if native::u16_at(blob, 0)? != MAGIC {
            return None;
        }
        let word = |offset| usize::try_from(native::u32_at(blob, offset)?).ok();
        let body = blob.get(word(4)?..)?;
        let types = body.get(word(8)?..)?.get(..word(12)?)?;
        let names = body.get(word(16)?..)?.get(..word(20)?)?;
        let mut offsets = vec![0];
        let mut at = 0_usize;
        while at < types.len() {
            offsets.push(u32::try_from(at).ok()?);
            at = at.checked_add(size_of_type(types, at)?)?;
        }
        Some(Self { types, names, offsets })
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.names.get(offset..));
        let rest = rest.unwrap_or(&[]);
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
        rest.get(..end).unwrap_or(&[])
    }

    /// The id of the struct called `name`.
    fn structure(&self, name: &str) -> Option<u32> {
        let ids = 1..u32::try_from(self.offsets.len()).ok()?;
        ids.into_iter().find(|id| {
            self.head(*id).is_some_and(|head| {
                head.kind == KIND_STRUCT && self.name(head.name) == name.as_bytes()
            })
        })
    }

    fn head(&self, id: u32) -> Option<Head> {
        let at = usize::try_from(*self.offsets.get(usize::try_from(id).ok()?)?).ok()?;
        let info = native::u32_at(self.types, at.checked_add(4)?)?;
        Some(Head {
            at,
            name: native::u32_at(self.types, at)?,
            kind: (info >> 24) & 0x1f,
            members: info & 0xffff,
            bitfields: info >> 31 == 1,
        })
    }

    /// Bytes from the start of type `id` to its member `name`, anonymous members searched through.
    fn member(&self, id: u32, name: &str, depth: u32) -> Option<u32> {
        let head = self.head(id)?;
        if depth > DEPTH_MAX || !matches!(head.kind, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        for index in 0..usize::try_from(head.members).ok()? {
            let at = head.at.checked_add(12)?.checked_add(index.checked_mul(12)?)?;
            let member_name = self.name(native::u32_at(self.types, at)?);
            let bits = native::u32_at(self.types, at.checked_add(8)?)?;
            let bits = if head.bitfields { bits & 0x00ff_ffff } else { bits };
            if member_name == name.as_bytes() {
                return Some(bits / 8);
            }
            if member_name.is_empty() {
                let inner = native::u32_at(self.types, at.checked_add(4)?)?;
                if let Some(offset) = self.member(inner, name, depth + 1) {
                    return (bits / 8).checked_add(offset);
                }
            }
        }
        None
    }
}

struct Head {
    at: usize,
    name: u32,
    kind: u32,
    members: u32,
    bitfields: bool,
}

fn size_of_type(types: &[u8], at: usize) -> Option<usize> {
    let info = native::u32_at(types, at.checked_add(4)?)?;
    let members = usize::try_from(info & 0xffff).ok()?;
    let extra = match (info >> 24) & 0x1f {
        KIND_INT | KIND_VARIABLE | KIND_DECLARATION_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_SECTION | KIND_ENUM64 => members * 12,
        KIND_ENUM | KIND_FUNCTION_PROTOTYPE => members * 8,
        0 => return None,
        _ => 0,
    };
    Some(12 + extra)
}

impl TypeInfo<'_> {
    /// Bytes from the start of `structure` to `member`; the error is the member.
    fn offset(&self, structure: &str, member: &'static str) -> Result<i32, &'static str> {
        let id = self.structure(structure).ok_or(member)?;
        let offset = self.member(id, member, 0).ok_or(member)?;
        i32::try_from(offset).map_err(|_| member)
    }

    /// Where the fields that the socket tracer reads lie; the error is the field that was not
    /// found.
    fn socket_layout(&self) -> Result<SocketLayout, &'static str> {
        Ok(SocketLayout {
            addresses_v4: self.offset("sock_common", "skc_daddr")?,
            ports: self.offset("sock_common", "skc_dport")?,
            kept_local_port: self.offset("inet_sock", "inet_sport")?,
            family: self.offset("sock_common", "skc_family")?,
            remote_v6: self.offset("sock_common", "skc_v6_daddr")?,
            local_v6: self.offset("sock_common", "skc_v6_rcv_saddr")?,
            protocol: self.offset("sock", "sk_protocol")?,
            bytes_acked: self.offset("tcp_sock", "bytes_acked")?,
            bytes_received: self.offset("tcp_sock", "bytes_received")?,
        })
    }

    /// Where the fields that the exec tracer reads lie; the error is the field that was not found.
    fn exec_layout(&self) -> Result<ExecLayout, &'static str> {
        Ok(ExecLayout {
            memory: self.offset("task_struct", "mm")?,
            arguments_start: self.offset("mm_struct", "arg_start")?,
            arguments_end: self.offset("mm_struct", "arg_end")?,
        })
    }
}

impl TypeInfo<'_> {
    /// Where the fields that the send tracer reads lie; the error is the field that was not found.
    fn sender_layout(&self) -> Result<SenderLayout, &'static str> {
        Ok(SenderLayout {
            protocol: self.offset("sock", "sk_protocol")?,
            ports: self.offset("sock_common", "skc_dport")?,
            namespace: self.offset("sock_common", "skc_net")?,
            namespace_number: self.offset("net", "ns")? + self.offset("ns_common", "inum")?,
        })
    }
}

/// What the tracers need of the running kernel; each may be missing for itself.
#[derive(Debug)]
struct KernelLayouts {
    socket: Result<SocketLayout, String>,
    exec: Result<ExecLayout, String>,
    sender: Result<SenderLayout, String>,
}

impl KernelLayouts {
    /// Read once: the file is some 6 MiB, and a kernel keeps its layout.
    fn of_this_kernel() -> &'static Self {
        static LAYOUTS: OnceLock<KernelLayouts> = OnceLock::new();
        LAYOUTS.get_or_init(|| {
            const PATH: &str = "/sys/kernel/btf/vmlinux";
            let blob = std::fs::read(PATH).map_err(|error| format!("{PATH}: {error}"));
            let types = blob.as_ref().map_err(Clone::clone).and_then(|blob| {
                TypeInfo::parse(blob).ok_or_else(|| format!("{PATH} cannot be read"))
            });
            let lacks = |field: &str| format!("{PATH} lacks {field}");
            match types {
                Ok(types) => Self {
                    socket: types.socket_layout().map_err(lacks),
                    exec: types.exec_layout().map_err(lacks),
                    sender: types.sender_layout().map_err(lacks),
                },
                Err(reason) => Self {
                    socket: Err(reason.clone()),
                    exec: Err(reason.clone()),
                    sender: Err(reason),
                },
            }
        })
    }
}

/// Where the running kernel has the fields that the socket tracer reads.
///
/// # Errors
///
/// It gives no type information, or a field is not found in it.
pub(crate) fn kernel_socket_layout() -> io::Result<SocketLayout> {
    KernelLayouts::of_this_kernel().socket.clone().map_err(unsupported)
}

/// Where the running kernel has the fields that the exec tracer reads.
///
/// # Errors
///
/// It gives no type information, or a field is not found in it.
pub(crate) fn kernel_exec_layout() -> io::Result<ExecLayout> {
    KernelLayouts::of_this_kernel().exec.clone().map_err(unsupported)
}

/// Where the running kernel has the fields that the send tracer reads.
///
/// # Errors
///
/// It gives no type information, or a field is not found in it.
pub(crate) fn kernel_sender_layout() -> io::Result<SenderLayout> {
    KernelLayouts::of_this_kernel().sender.clone().map_err(unsupported)
}

fn unsupported(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct sock_common { union { u64 pair; struct { u32 skc_daddr; u32 skc_rcv_saddr; }; }; }`.
    fn blob() -> Vec<u8> {
        let names = b"\0sock_common\0pair\0skc_daddr\0skc_rcv_saddr\0";
        let mut types = Vec::new();
        let push = |types: &mut Vec<u8>, words: &[u32]| {
            words.iter().for_each(|word| native::push_u32(types, *word));
        };
        push(&mut types, &[0, KIND_INT << 24, 4, 32]); // 1
        push(&mut types, &[0, KIND_STRUCT << 24 | 2, 8, 18, 1, 0, 28, 1, 32]); // 2
        push(&mut types, &[0, KIND_UNION << 24 | 2, 8, 13, 1, 0, 0, 2, 0]); // 3
        push(&mut types, &[1, KIND_STRUCT << 24 | 1, 16, 0, 3, 64]); // 4
        let mut blob = Vec::new();
        native::push_u16(&mut blob, 0xeb9f);
        native::push_u16(&mut blob, 1);
        push(&mut blob, &[24, 0, types.len() as u32, types.len() as u32, names.len() as u32]);
        blob.extend_from_slice(&types);
        blob.extend_from_slice(names);
        blob
    }

    #[test]
    fn a_member_is_found_through_anonymous_ones() {
        let blob = blob();
        let info = TypeInfo::parse(&blob).unwrap();
        let id = info.structure("sock_common").unwrap();
        assert_eq!(info.member(id, "skc_daddr", 0), Some(8));
        assert_eq!(info.member(id, "skc_rcv_saddr", 0), Some(12));
        assert_eq!(info.member(id, "skc_nothing", 0), None);
    }

    #[test]
    fn cut_or_changed_bytes_do_not_panic() {
        let blob = blob();
        for length in 0..blob.len() {
            let _ = TypeInfo::parse(&blob[..length]).map(|info| info.socket_layout());
        }
        for at in 0..blob.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = blob.clone();
                changed[at] = value;
                let _ = TypeInfo::parse(&changed).map(|info| info.socket_layout());
            }
        }
    }
}
