//! Products on tensor cores: how a result is cut into tiles, and the three products of a linear layer.

use super::{
    device::Address,
    partials::MatrixSums,
    recorder::{IndexReference, Recorder, Reference, RowCount, blocks},
};
use bytemuck::{Pod, Zeroable};

/// Elements of the summed dimension that a block has at a time, and how many times; mirrors `product.cuh`.
const DEPTH: usize = 16;
const STAGES: usize = 3;
/// Tiles that keep a large device busy.
const MANY: usize = 128;
/// Most runs of rows that sums are cut into, and fewest rows of a run.
const RUNS: usize = 256;
const RUN: usize = 64;

/// The part of a result that a block computes; a shape of `product.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tile {
    /// 128 x 128.
    Large,
    /// 64 x 64.
    Small,
}

impl Tile {
    /// Large ones where there are enough of them and not much more of them is empty.
    fn of(rows: usize, columns: usize, parts: usize) -> Self {
        let tiles = |tile: Self| tile.count(rows) * tile.count(columns);
        let area = |tile: Self| tiles(tile) * tile.side() * tile.side();
        let large = tiles(Self::Large) * parts >= MANY && 4 * area(Self::Large) <= 5 * area(Self::Small);
        if large { Self::Large } else { Self::Small }
    }
    /// Rows, and columns.
    pub fn side(self) -> usize {
        match self {
            Self::Large => 128,
            Self::Small => 64,
        }
    }
    /// Threads of a block.
    pub fn threads(self) -> u32 {
        match self {
            Self::Large => 256,
            Self::Small => 128,
        }
    }
    /// Tiles along a side of the result.
    pub fn count(self, elements: usize) -> usize {
        elements.div_ceil(self.side())
    }
    /// Floats of an operand's tile whose rows have the summed dimension, or which lie across it.
    pub fn along(self) -> usize {
        self.side() * DEPTH
    }
    fn across(self) -> usize {
        DEPTH * (self.side() + 8)
    }
    fn kernel(self, name: &str, r: &Recorder) -> String {
        let size = if self == Self::Large { "large" } else { "small" };
        format!("{name}_{size}_{}", r.multiply.suffix())
    }
}

/// Bytes of the stages of tiles.
pub fn stages(floats: usize) -> usize {
    4 * STAGES * floats
}

/// y = activation(x Wᵀ + bias factorsᵀ + z\[index\]); mirrors `LinearForward`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Forward {
    pub step: Address,
    pub weight: Address,
    pub bias: Address,
    pub factors: Address,
    pub x: Reference,
    pub y: Reference,
    pub before: Reference,
    pub z: Reference,
    pub index: IndexReference,
    pub rows: RowCount,
    pub k: i32,
    pub n: i32,
    pub weight_stride: i32,
    pub y_stride: i32,
    pub activation: i32,
    pub accumulate: i32,
}

/// Appends y = .. for at most `capacity` rows.
pub fn forward(r: &mut Recorder, capacity: usize, a: &Forward) {
    let n = a.n as usize;
    let tile = Tile::of(capacity, n, 1);
    let grid = [tile.count(n) as u32, blocks(capacity, tile.side()), 1];
    r.launch(&tile.kernel("linear_forward", r), grid, tile.threads(), stages(2 * tile.along()), a);
}

/// What d is; mirrors `SlopeKind`.
pub const PLAIN: i32 = 0;
pub const OF_RELU: i32 = 1;
pub const OF_GELU: i32 = 2;
pub const OF_MAXIMA: i32 = 3;

/// Segments whose maxima d comes from; mirrors `Maxima`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Maxima {
    pub list: IndexReference,
    pub kept: IndexReference,
    pub segment_of: Address,
    pub ordered: Address,
    pub segments: RowCount,
}

/// The gradient d of a product's result; mirrors `Slope`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Slope {
    pub dy: Reference,
    pub by: Reference,
    pub maxima: Maxima,
    pub kind: i32,
    pub stride: i32,
}

impl Slope {
    /// d is dy itself, whose rows begin `stride` apart.
    pub fn plain(dy: Reference, stride: usize) -> Self {
        let none = IndexReference::at(0);
        let maxima = Maxima { list: none, kept: none, segment_of: 0, ordered: 0, segments: RowCount::fixed(0) };
        Self { dy, by: Reference::none(), maxima, kind: PLAIN, stride: stride as i32 }
    }
    fn activated(&self) -> bool {
        self.kind == OF_RELU || self.kind == OF_GELU
    }
}

/// A matrix of the device, rows `stride` apart.
#[derive(Clone, Copy)]
pub struct Weight {
    pub at: Address,
    pub rows: usize,
    pub columns: usize,
    pub stride: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Dx {
    step: Address,
    weight: Address,
    slope: Slope,
    dx: Reference,
    rows: RowCount,
    k: i32,
    n: i32,
    weight_stride: i32,
    accumulate: i32,
}

/// Appends dx (+)= d W for at most `capacity` rows.
pub fn dx(r: &mut Recorder, (rows, capacity): (RowCount, usize), slope: Slope, weight: Weight, (dx, accumulate): (Reference, bool)) {
    let [n, k] = [weight.rows, weight.columns];
    let tile = Tile::of(capacity, k, 1);
    let floats = tile.along() + tile.across() + if slope.activated() { tile.along() } else { 0 };
    let grid = [tile.count(k) as u32, blocks(capacity, tile.side()), 1];
    let arguments = Dx {
        step: r.step(),
        weight: weight.at,
        slope,
        dx,
        rows,
        k: k as i32,
        n: n as i32,
        weight_stride: weight.stride as i32,
        accumulate: i32::from(accumulate),
    };
    r.launch(&tile.kernel("linear_dx", r), grid, tile.threads(), stages(floats), &arguments);
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Dw {
    step: Address,
    factors: Address,
    slope: Slope,
    x: Reference,
    partials: Address,
    rows: RowCount,
    k: i32,
    n: i32,
    partial: i32,
    biased: i32,
}

/// Where dᵀ x and the sum of the rows of d go: they are added to `weight` and `bias`, and overwrite `totals`; 0 is nowhere.
#[derive(Clone, Copy)]
pub struct Sums {
    /// Of d's columns and of x's.
    pub n: usize,
    pub k: usize,
    /// Gradient of W, and what lies between its rows.
    pub weight: (Address, usize),
    pub bias: Address,
    /// dᵀ x `[n, k]`, then the sum of rows `[n]`.
    pub totals: Address,
}

/// Appends dᵀ x and the sum of the rows of d, each times its factor where there are any, for at most `capacity` rows.
pub fn dw(r: &mut Recorder, (rows, capacity): (RowCount, usize), slope: Slope, x: Reference, factors: Address, sums: Sums) {
    let Sums { n, k, .. } = sums;
    let most = capacity.div_ceil(RUN).clamp(1, RUNS);
    let tile = Tile::of(n, k, most);
    let tiles = tile.count(n) * tile.count(k);
    let count = (2 * MANY).div_ceil(tiles).min(most);
    let biased = sums.bias != 0 || sums.totals != 0;
    let (matrix, bias, totals) = (sums.weight, sums.bias, sums.totals);
    let partial = MatrixSums { count, rows: n, columns: k, vector: if biased { n } else { 0 }, matrix, bias, totals };
    let floats = 2 * tile.across() + if slope.activated() { tile.across() } else { 0 };
    let [k, n, room] = [k, n, partial.room()].map(|n| n as i32);
    partial.add(r, |r, partials| {
        let arguments = Dw { step: r.step(), factors, slope, x, partials, rows, k, n, partial: room, biased: i32::from(biased) };
        r.launch(&tile.kernel("linear_dw", r), [tiles as u32, count as u32, 1], tile.threads(), stages(floats), &arguments);
    });
}
