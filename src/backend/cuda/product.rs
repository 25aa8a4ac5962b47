//! Products on tensor cores: how a result is cut into tiles, and the three products of a linear layer.

use super::{
    Multiply,
    chain::Kind,
    device::{Address, MULTIPROCESSORS},
    norm::Norm,
    partials::{self, MatrixSums, PartialSum},
    recorder::{IndexReference, Recorder, Reference, RowCount, blocks},
};
use crate::graph::Vector;
use bytemuck::{Pod, Zeroable};

/// Elements of the summed dimension that are multiplied at a time; mirrors `operand.cuh`. A step of a [`Tile`] has as many.
pub const SLICE: usize = 16;
/// How many times both shapes of a [`Tile`] have them.
const STAGES: usize = 3;
/// Warps along the rows of a tile of any shape.
const WARPS: usize = 2;
/// Tiles that keep a large device busy.
const MANY: usize = 128;
/// Most blocks of a launch whose blocks all have about as much to do: two rounds of two on each multiprocessor, with none left over.
const ROUNDS: usize = 2 * 2 * MULTIPROCESSORS;
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
    fn of(rows: usize, columns: usize) -> Self {
        let tiles = |tile: Self| tile.count(rows) * tile.count(columns);
        let area = |tile: Self| tiles(tile) * tile.side() * tile.side();
        let large = tiles(Self::Large) >= MANY && 4 * area(Self::Large) <= 5 * area(Self::Small);
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
    pub fn threads(self, multiply: Multiply) -> u32 {
        if self == Self::Large && multiply == Multiply::Tf32x3 { 256 } else { 128 }
    }
    /// Tiles along a side of the result.
    pub fn count(self, elements: usize) -> usize {
        elements.div_ceil(self.side())
    }
    /// Floats of a stage of x Wᵀ.
    pub fn forward(self, multiply: Multiply) -> usize {
        let along = along(self.side(), SLICE);
        along + of_weights(along, multiply)
    }
    fn across(self) -> usize {
        across(self.side(), SLICE)
    }
    fn kernel(self, name: &str, r: &Recorder) -> String {
        let size = if self == Self::Large { "large" } else { "small" };
        format!("{name}_{size}_{}", r.multiply.suffix())
    }
}

/// Floats of a tile of an operand with so many rows or columns of the result and so much of the summed dimension, along it or across it.
fn along(size: usize, depth: usize) -> usize {
    size * depth
}
fn across(size: usize, depth: usize) -> usize {
    depth * (size + 8)
}
/// Floats of such a tile of weights.
fn of_weights(floats: usize, multiply: Multiply) -> usize {
    if multiply.half() == 0 { floats } else { floats / 2 }
}

/// Bytes of the stages of tiles.
pub fn stages(floats: usize) -> usize {
    4 * STAGES * floats
}

/// Bytes of a tile of the result in shared memory, whose rows are padded.
pub fn whole(tile: Tile) -> usize {
    4 * tile.side() * (tile.side() + 8)
}

/// Mean of each column of a tensor over runs of `rows` rows (0: as blocks share them), and sum of squares about it: `[count, 2 columns]`.
#[derive(Clone, Copy)]
pub struct RunStatistics {
    pub partials: Address,
    pub count: usize,
    pub rows: usize,
}

/// y (+)= activation(x Wᵀ + bias + z\[index\]), added to only without activation and z; mirrors `LinearForward`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Forward {
    pub step: Address,
    pub weight: Address,
    pub bias: Address,
    /// Of y, see [`RunStatistics`]; 0: none.
    pub statistics: Address,
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
    let tile = Tile::of(capacity, a.n as usize);
    launch_forward(r, tile, capacity, a);
}

/// As [`forward`], and the statistics of y, which last.
pub fn forward_with_statistics(r: &mut Recorder, capacity: usize, a: &Forward) -> RunStatistics {
    let n = a.n as usize;
    let tile = Tile::of(capacity, n);
    let count = tile.count(capacity);
    let partials = r.lasting_scratch(2 * count * n);
    launch_forward(r, tile, capacity, &Forward { statistics: partials, ..*a });
    RunStatistics { partials, count, rows: tile.side() }
}

fn launch_forward(r: &mut Recorder, tile: Tile, capacity: usize, a: &Forward) {
    let n = a.n as usize;
    let grid = [tile.count(n) as u32, blocks(capacity, tile.side()), 1];
    let statistics = if a.statistics == 0 { 0 } else { 4 * 2 * WARPS * tile.side() };
    r.launch(&tile.kernel("linear_forward", r), grid, tile.threads(r.multiply), stages(tile.forward(r.multiply)) + statistics, a);
}

/// As [`forward`] without z and halves, as a link of a chain.
pub fn chain_forward(r: &mut Recorder, a: &Forward) {
    let (shape, multiply) = (r.chain_shape(), r.multiply);
    let depth = shape.depth(multiply);
    let floats = along(shape.rows(), depth) + of_weights(along(shape.columns(), depth), multiply);
    r.link(Kind::LinearForward, 4 * shape.stages(multiply) * floats, a);
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
    /// d follows from dy and from another matrix.
    fn of_two(&self) -> bool {
        self.kind != PLAIN
    }
}

/// A matrix of the device, rows `stride` apart; as a factor of products it is in 16 bits if they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

impl Dx {
    fn new(r: &Recorder, rows: RowCount, slope: Slope, weight: Weight, (dx, accumulate): (Reference, bool)) -> Self {
        let [k, n, weight_stride] = [weight.columns, weight.rows, weight.stride].map(|n| n as i32);
        Self { step: r.step(), weight: weight.at, slope, dx, rows, k, n, weight_stride, accumulate: i32::from(accumulate) }
    }
    /// Floats of a stage for tiles of so many rows and columns, and so much of the summed dimension.
    fn floats(&self, multiply: Multiply, [rows, columns, depth]: [usize; 3]) -> usize {
        let left = along(rows, depth);
        left + of_weights(across(columns, depth), multiply) + if self.slope.of_two() { left } else { 0 }
    }
}

/// Appends dx (+)= d W for at most `capacity` rows.
pub fn dx(r: &mut Recorder, (rows, capacity): (RowCount, usize), slope: Slope, weight: Weight, dx: (Reference, bool)) {
    let arguments = Dx::new(r, rows, slope, weight, dx);
    let tile = Tile::of(capacity, weight.columns);
    let grid = [tile.count(weight.columns) as u32, blocks(capacity, tile.side()), 1];
    r.launch(
        &tile.kernel("linear_dx", r),
        grid,
        tile.threads(r.multiply),
        stages(arguments.floats(r.multiply, [tile.side(), tile.side(), SLICE])),
        &arguments,
    );
}

/// As [`dx`], as a link of a chain.
pub fn chain_dx(r: &mut Recorder, rows: RowCount, slope: Slope, weight: Weight, dx: (Reference, bool)) {
    let arguments = Dx::new(r, rows, slope, weight, dx);
    let (shape, multiply) = (r.chain_shape(), r.multiply);
    let floats = arguments.floats(multiply, [shape.rows(), shape.columns(), shape.depth(multiply)]);
    r.link(Kind::LinearDx, 4 * shape.stages(multiply) * floats, &arguments);
}

/// The gradient through a batch norm, given that of its result, d W; mirrors `NormDx`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct NormDx {
    product: Dx,
    x: Reference,
    norm: Norm,
    partials: Address,
    totals: Address,
}

/// Appends dx (+)= what operand 0, of which `norm` made a product's operand, has as its gradient, if it has one, and adds to the gradients of the
/// norm's parameters.
pub fn norm_dx(
    r: &mut Recorder,
    (rows, capacity): (RowCount, usize),
    slope: Slope,
    weight: Weight,
    norm: Norm,
    parameters: [Vector; 2],
    train: bool,
) {
    let (tile, dx) = (Tile::Large, r.dx(0));
    let product = Dx::new(r, rows, slope, weight, dx.unwrap_or((Reference::none(), false)));
    let count = (blocks(capacity, tile.side()) as usize).min(RUNS);
    let partials = r.scratch(2 * count * weight.columns);
    let mut arguments = NormDx { product, x: r.input(0), norm, partials, totals: 0 };
    let grid = [tile.count(weight.columns) as u32, count as u32, 1];
    let shared = stages(product.floats(r.multiply, [tile.side(), tile.side(), SLICE])).max(whole(tile));
    r.launch(&format!("norm_sums_{}", r.multiply.suffix()), grid, tile.threads(r.multiply), shared, &arguments);
    let totals = partials::add_to_gradients(r, partials, count, &parameters);
    if dx.is_some() {
        arguments.totals = if train { totals } else { 0 };
        let grid = [grid[0], blocks(capacity, tile.side()), 1];
        r.launch(&format!("norm_dx_{}", r.multiply.suffix()), grid, tile.threads(r.multiply), shared, &arguments);
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Dw {
    step: Address,
    factors: Address,
    slope: Slope,
    x: Reference,
    norm: Norm,
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

/// dᵀ x and the sum of the rows of d, each times its factor where there are any.
pub struct Gradient {
    arguments: Dw,
    sums: Sums,
    capacity: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct DwGroup {
    problems: Address,
    tiles: Address,
}

impl Gradient {
    /// For at most `capacity` rows.
    pub fn new(r: &Recorder, (rows, capacity): (RowCount, usize), slope: Slope, x: Reference, factors: Address, sums: Sums) -> Self {
        let biased = sums.bias != 0 || sums.totals != 0;
        let [k, n] = [sums.k, sums.n].map(|n| n as i32);
        let arguments =
            Dw { step: r.step(), factors, slope, x, norm: Norm::none(), partials: 0, rows, k, n, partial: 0, biased: i32::from(biased) };
        Self { arguments, sums, capacity }
    }
    /// With x normalised by `norm`.
    pub fn normalised(mut self, norm: Norm) -> Self {
        self.arguments.norm = norm;
        self
    }
    fn tiles(&self, tile: Tile) -> usize {
        tile.count(self.sums.n) * tile.count(self.sums.k)
    }
    /// Runs of so many rows.
    fn runs(&self, run: usize) -> usize {
        self.capacity.div_ceil(run).clamp(1, RUNS)
    }
    /// Rows times tiles.
    fn work(&self, tile: Tile) -> usize {
        self.tiles(tile) * self.capacity
    }
}

/// Whether large tiles suit gradients: not much more of them is empty.
fn suits_large(group: &[Gradient]) -> bool {
    let area = |tile: Tile| group.iter().map(|g| g.work(tile)).sum::<usize>() * tile.side() * tile.side();
    4 * area(Tile::Large) <= 5 * area(Tile::Small)
}

/// Appends gradients in a launch, or in one for each size of tiles if one does not suit all: blocks have runs of rows, all about as long, and leave
/// partial sums, which are to be added up.
pub fn partial_gradients(r: &mut Recorder, group: Vec<Gradient>) -> Vec<PartialSum> {
    let (mut large, mut small) = if suits_large(&group) {
        (group, Vec::new())
    } else {
        group.into_iter().partition::<Vec<_>, _>(|gradient| suits_large(std::slice::from_ref(gradient)))
    };
    let blocks = |g: &Gradient| g.tiles(Tile::Large) * g.capacity.div_ceil(RUN).min(RUNS);
    if large.iter().map(blocks).sum::<usize>() < MANY {
        small.append(&mut large);
    }
    [(Tile::Large, large), (Tile::Small, small)].into_iter().flat_map(|(tile, group)| gradients_in_tiles(r, tile, group)).collect()
}

fn gradients_in_tiles(r: &mut Recorder, tile: Tile, mut group: Vec<Gradient>) -> Vec<PartialSum> {
    if group.is_empty() {
        return Vec::new();
    }
    let blocks = |run: usize| group.iter().map(|g| g.tiles(tile) * g.runs(run)).sum::<usize>();
    let longest = group.iter().map(|g| g.capacity).max().unwrap_or(0);
    let least = group.iter().map(|g| g.work(tile)).sum::<usize>().div_ceil(ROUNDS).max(RUN);
    let run = (least..longest).step_by(SLICE).find(|&run| blocks(run) <= ROUNDS).unwrap_or(longest.max(RUN));
    let (mut sums, mut tiles) = (Vec::new(), Vec::new());
    for (i, gradient) in group.iter_mut().enumerate() {
        let Sums { n, k, weight, bias, totals } = gradient.sums;
        let count = gradient.runs(run);
        let vector = if gradient.arguments.biased == 0 { 0 } else { n };
        let sum = MatrixSums { count, rows: n, columns: k, vector, matrix: weight, bias, totals };
        gradient.arguments.partials = r.scratch(count * sum.room());
        gradient.arguments.partial = sum.room() as i32;
        sums.push(sum.of(gradient.arguments.partials));
        tiles.extend((0..count).flat_map(|run| (0..gradient.tiles(tile)).map(move |tile| [i, tile, run, count].map(|n| n as i32))));
    }
    let problems: Vec<Dw> = group.iter().map(|g| g.arguments).collect();
    let of_two = group.iter().any(|g| g.arguments.slope.of_two());
    let floats = 2 * tile.across() + if of_two { tile.across() } else { 0 };
    let arguments = DwGroup { problems: r.constants(&problems), tiles: r.constants(&tiles) };
    r.launch(&tile.kernel("linear_dw", r), [tiles.len() as u32, 1, 1], tile.threads(r.multiply), stages(floats), &arguments);
    sums
}
