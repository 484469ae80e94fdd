//! Numbers of identities: a slot names one in two bytes.

use std::collections::HashMap;

use crate::identity::IdentityId;

#[derive(Clone, Copy, Debug)]
struct Numbered {
    /// None once it was cleared; the number is free when no slot has it.
    id: Option<IdentityId>,
    blocks: u32,
}

/// Number `n` is at `n - 1`.
#[derive(Debug, Default)]
pub(super) struct Identities {
    numbered: Vec<Numbered>,
    numbers: HashMap<IdentityId, u16>,
    free: Vec<u16>,
    retired: usize,
}

impl Identities {
    pub(super) fn allocated_bytes(&self) -> u64 {
        let numbered = self.numbered.capacity() * size_of::<Numbered>();
        let numbers = self.numbers.capacity() * size_of::<(IdentityId, u32)>();
        (numbered + numbers + self.free.capacity() * 2) as u64
    }

    pub(super) fn number(&self, id: &IdentityId) -> Option<u16> {
        self.numbers.get(id).copied()
    }

    pub(super) fn id(&self, number: u16) -> Option<IdentityId> {
        self.numbered.get(usize::from(number) - 1)?.id
    }

    /// The number of an identity, a new one if it has none; none when all are taken.
    pub(super) fn take(&mut self, id: &IdentityId) -> Option<u16> {
        if let Some(number) = self.number(id) {
            return Some(number);
        }
        let fresh = Numbered { id: Some(*id), blocks: 0 };
        let number = match self.free.pop() {
            Some(number) => {
                self.numbered[usize::from(number) - 1] = fresh;
                number
            }
            None => {
                let number = u16::try_from(self.numbered.len() + 1).ok()?;
                self.numbered.push(fresh);
                number
            }
        };
        self.numbers.insert(*id, number);
        Some(number)
    }

    pub(super) fn add(&mut self, number: u16) {
        self.numbered[usize::from(number) - 1].blocks += 1;
    }

    pub(super) fn sub(&mut self, number: u16) {
        let numbered = &mut self.numbered[usize::from(number) - 1];
        numbered.blocks -= 1;
        if numbered.blocks > 0 {
            return;
        }
        match numbered.id.take() {
            Some(id) => {
                self.numbers.remove(&id);
            }
            None => self.retired -= 1,
        }
        self.free.push(number);
    }

    /// Forgets an identity; whether blocks of it wait to be taken out.
    pub(super) fn retire(&mut self, id: &IdentityId) -> bool {
        let Some(number) = self.numbers.remove(id) else { return false };
        // Numbers that no block has are given back at once, so this one has some.
        self.numbered[usize::from(number) - 1].id = None;
        self.retired += 1;
        true
    }

    pub(super) fn has_retired(&self) -> bool {
        self.retired > 0
    }

    pub(super) fn audit(&self, numbers: impl Iterator<Item = u16>) -> Result<(), String> {
        let mut real = vec![0_u32; self.numbered.len()];
        numbers.for_each(|number| real[usize::from(number) - 1] += 1);
        let counted: Vec<u32> = self.numbered.iter().map(|numbered| numbered.blocks).collect();
        let named = self.numbered.iter().filter(|numbered| numbered.id.is_some()).count();
        let retired = self.numbered.len() - named - self.free.len();
        if real != counted || named != self.numbers.len() || retired != self.retired {
            return Err(format!("identities have {real:?} blocks, but {counted:?} are counted"));
        }
        Ok(())
    }
}
