//! What lies where: one allocation that lasts, and one for the work on a batch, which grows with the plans.

use super::{
    device::{ALIGNMENT, Address, Device},
    loss_scale,
    optimizer::{self, Buffers, Outcome, UpdateBlock},
    recorder::{Addresses, StepBlock, bytes},
};
use crate::{
    backend::Buffer,
    error::{Error, Result},
    graph::MOST_NUMBERS,
};

/// Bytes of what a report is made of: numbers of a run and the outcome of an update.
pub const REPORT: usize = 4 * MOST_NUMBERS + size_of::<Outcome>();

/// Parameters, gradients, moments and statistics, and what an update needs beside them.
#[derive(Debug)]
pub struct State {
    start: Address,
    buffers: Buffers,
}

impl State {
    /// All of it, zeroed; `scaled`: the loss's gradient has a factor.
    pub fn new(device: &dyn Device, parameters: usize, statistics: usize, scaled: bool) -> Result<Self> {
        let numbers = [4 * parameters; 4].into_iter().chain([4 * statistics; 2]);
        let rest = [size_of::<UpdateBlock>(), REPORT, optimizer::partial_bytes(parameters), size_of::<loss_scale::Block>()];
        let sizes: Vec<usize> = numbers.chain(rest).collect();
        let (start, at) = allocate(device, &sizes, "parameters, gradients and moments")?;
        at[..6].iter().zip(&sizes).try_for_each(|(&part, &size)| device.clear(part, size))?;
        let (numbers, outcome) = (at[7], at[7] + bytes(MOST_NUMBERS));
        device.clear(numbers, REPORT)?;
        device.upload(outcome, bytemuck::bytes_of(&Outcome::START))?;
        let buffers = Buffers {
            parameters: at[0],
            gradients: at[1],
            moments: [at[2], at[3]],
            statistics: at[4],
            pending: at[5],
            block: at[6],
            numbers,
            outcome,
            partials: at[8],
            loss_scale: if scaled { at[9] } else { 0 },
            len: parameters,
            statistics_len: statistics,
        };
        Ok(Self { start, buffers })
    }

    /// What an update works with.
    pub fn update_buffers(&self) -> Buffers {
        self.buffers
    }

    /// First element of a buffer.
    pub fn at(&self, buffer: Buffer) -> Address {
        match buffer {
            Buffer::Parameters => self.buffers.parameters,
            Buffer::Gradients => self.buffers.gradients,
            Buffer::FirstMoments => self.buffers.moments[0],
            Buffer::SecondMoments => self.buffers.moments[1],
            Buffer::Statistics => self.buffers.statistics,
            Buffer::PendingStatistics => self.buffers.pending,
        }
    }

    /// Elements of a buffer.
    pub fn len(&self, buffer: Buffer) -> usize {
        match buffer {
            Buffer::Statistics | Buffer::PendingStatistics => self.buffers.statistics_len,
            _ => self.buffers.len,
        }
    }

    /// Where launches find everything, given the places of the work.
    pub fn addresses(&self, work: Addresses) -> Addresses {
        let Buffers { parameters, gradients, statistics, pending, loss_scale, numbers, outcome, .. } = self.buffers;
        let spoiled = outcome + std::mem::offset_of!(Outcome, spoiled) as Address;
        Addresses { parameters, gradients, statistics, pending, loss_scale, numbers, spoiled, ..work }
    }

    pub fn free(&self, device: &dyn Device) {
        device.free(self.start);
    }
}

/// Elements of the parts of [`Work`], and bytes of scratch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs {
    pub reals: usize,
    pub indexes: usize,
    pub arena: usize,
    pub index_arena: usize,
    pub scratch: usize,
}

impl Needs {
    fn each(self, other: Self, f: impl Fn(usize, usize) -> usize) -> Self {
        Self {
            reals: f(self.reals, other.reals),
            indexes: f(self.indexes, other.indexes),
            arena: f(self.arena, other.arena),
            index_arena: f(self.index_arena, other.index_arena),
            scratch: f(self.scratch, other.scratch),
        }
    }
}

/// The step block, two feeds, both arenas and scratch. Addresses change when it grows.
#[derive(Debug, Default)]
pub struct Work {
    start: Option<Address>,
    at: Addresses,
    room: Needs,
}

impl Work {
    /// Where its parts begin; the rest is 0.
    pub fn addresses(&self) -> Addresses {
        self.at
    }

    /// First elements of the reals and the indexes of a feed, the first (0) or the second (1).
    pub fn feed(&self, number: usize) -> [usize; 2] {
        [number * self.room.reals, number * self.room.indexes]
    }

    /// True if a feed of these lengths fits.
    pub fn holds(&self, reals: usize, indexes: usize) -> bool {
        self.start.is_some() && reals <= self.room.reals && indexes <= self.room.indexes
    }

    /// True if all of it fits.
    pub fn fits(&self, needs: &Needs) -> bool {
        let more = needs.each(self.room, |need, room| usize::from(need > room));
        self.start.is_some() && more.reals + more.indexes + more.arena + more.index_arena + more.scratch == 0
    }

    /// Makes room for at least this and what was there; the feed gets a little more, as its length changes from batch to batch.
    pub fn grow(&mut self, device: &dyn Device, needs: &Needs) -> Result<()> {
        let headroom = |n: usize| n + n.div_ceil(16);
        let needs = Needs { reals: headroom(needs.reals), indexes: headroom(needs.indexes), ..*needs };
        let room = self.room.each(needs, usize::max);
        self.free(device);
        let elements = [2 * room.reals, 2 * room.indexes, room.arena, room.index_arena].map(|n| 4 * n);
        let sizes: Vec<usize> = [size_of::<StepBlock>(), room.scratch].into_iter().chain(elements).collect();
        let (start, at) = allocate(device, &sizes, "the work on a batch of this size")?;
        let [step, scratch, reals, indexes, arena, index_arena] = at[..] else { unreachable!("as many as sizes") };
        (self.start, self.room) = (Some(start), room);
        self.at = Addresses { step, reals, indexes, arena, index_arena, scratch, ..Addresses::default() };
        Ok(())
    }

    pub fn free(&mut self, device: &dyn Device) {
        self.start.take().into_iter().for_each(|start| device.free(start));
        *self = Self { room: self.room, ..Self::default() };
    }
}

/// One allocation for parts of these sizes in bytes; gives its start and that of each part.
fn allocate(device: &dyn Device, sizes: &[usize], what: &str) -> Result<(Address, Vec<Address>)> {
    let mut end = 0;
    let mut places = Vec::with_capacity(sizes.len());
    for size in sizes {
        places.push(end);
        end += size.next_multiple_of(ALIGNMENT);
    }
    let memory = device.memory()?;
    if end > memory.free {
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        return Err(Error::Backend(format!(
            "{} has {} MiB of {} MiB free, {} MiB are needed for {what}: a smaller batch size needs less",
            device.describe(),
            mib(memory.free),
            mib(memory.total),
            mib(end)
        )));
    }
    let start = device.allocate(end)?;
    Ok((start, places.into_iter().map(|place| start + place as Address).collect()))
}
