//! Records operations with checked shapes. A method computes nothing: it appends a node and returns its result.

use super::{
    Activation, Attention, Element, Folded, Graph, MOST_CANDIDATES, MOST_MOMENTS, Matrix, Measure, Node, Op, Pass, Place, RowMap, Rows,
    Scope, Subject, Tensor, TensorId, Vector,
};
use crate::error::{Error, Result};

/// What the graph is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forward and backward, batch statistics, dropout.
    Train,
    /// Forward alone, running statistics, no dropout.
    Evaluate,
}

/// Records a [`Graph`].
#[derive(Debug)]
pub struct Builder {
    graph: Graph,
    mode: Mode,
    scope: Vec<String>,
    streams: u32,
    frozen: Vec<String>,
}

impl Builder {
    /// An empty graph.
    pub fn new(mode: Mode) -> Self {
        Self { graph: Graph::default(), mode, scope: Vec::new(), streams: 0, frozen: Vec::new() }
    }

    /// Parameters, by name, that stay as they are. A batch norm whose scale is one of them works as in evaluation: it uses its
    /// running statistics and leaves them.
    pub fn freeze(&mut self, names: &[String]) {
        self.frozen = names.to_vec();
    }

    /// What the graph is for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// True in training.
    pub fn training(&self) -> bool {
        self.mode == Mode::Train
    }

    /// The recorded graph.
    pub fn finish(self) -> Graph {
        self.graph
    }

    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Names what is recorded from here to the matching [`Builder::leave`].
    pub fn enter(&mut self, name: impl Into<String>) {
        self.scope.push(name.into());
    }

    /// Ends the innermost name.
    pub fn leave(&mut self) {
        self.scope.pop();
    }

    /// Width of a tensor.
    pub fn width(&self, x: TensorId) -> usize {
        self.graph.tensor(x).width
    }

    /// Rows of a tensor.
    pub fn rows(&self, x: TensorId) -> Rows {
        self.graph.tensor(x).rows
    }

    /// Keeps a tensor readable after the run under a name.
    pub fn result(&mut self, name: &str, x: TensorId) {
        self.graph.results.push((name.into(), x));
    }

    /// An input of the feed `[rows, width]`.
    pub fn input(&mut self, name: &str, slot: usize, rows: Rows, width: usize) -> TensorId {
        self.tensor(name.into(), rows, width, Element::Real, Place::Input(slot))
    }

    /// A parameter as a matrix `[rows, width]`; its last axis makes the columns.
    ///
    /// # Errors
    /// There is no such parameter.
    pub fn parameter(&mut self, p: &Scope, name: &str) -> Result<TensorId> {
        let entry = p.entry(name)?;
        let width = entry.shape.last().copied().unwrap_or(1);
        let rows = Rows::fixed(entry.len() / width.max(1));
        Ok(self.tensor(entry.name.clone(), rows, width, Element::Real, Place::Parameter(entry.offset)))
    }

    /// y = activation(x Wᵀ + b) with `weight` and, where there is one, `bias` of the scope.
    ///
    /// # Errors
    /// A missing parameter or a width that does not fit.
    pub fn linear(&mut self, x: TensorId, p: &Scope, activation: Activation) -> Result<TensorId> {
        let bias = if p.has("bias") { Some(p.vector("bias")?) } else { None };
        self.linear_part(x, p.matrix("weight")?, bias, activation)
    }

    /// As [`Builder::linear`] with parts of parameters.
    ///
    /// # Errors
    /// A width that does not fit.
    pub fn linear_part(&mut self, x: TensorId, weight: Matrix, bias: Option<Vector>, activation: Activation) -> Result<TensorId> {
        self.check(weight.columns == self.width(x), || {
            format!("linear: x has width {}, weight {} columns", self.width(x), weight.columns)
        })?;
        self.check(bias.is_none_or(|b| b.len == weight.rows), || format!("linear: bias does not fit {} outputs", weight.rows))?;
        let rows = self.rows(x);
        let outputs = if activation == Activation::Gelu { vec![weight.rows, weight.rows] } else { vec![weight.rows] };
        Ok(self.push(Op::Linear { weight, bias, activation }, &[x], rows, &outputs))
    }

    /// Layer normalisation with `weight` and `bias` of the scope.
    ///
    /// # Errors
    /// A missing parameter or a width that does not fit.
    pub fn layer_norm(&mut self, x: TensorId, p: &Scope, activation: Activation) -> Result<TensorId> {
        let (gamma, beta) = self.norm_parameters(x, p)?;
        let (rows, width) = (self.rows(x), self.width(x));
        Ok(self.push(Op::LayerNorm { gamma, beta, activation }, &[x], rows, &[width, 2]))
    }

    /// Batch normalisation over all rows with `weight`, `bias`, `running_mean`, `running_var` of the scope.
    ///
    /// # Errors
    /// A missing parameter or a width that does not fit.
    pub fn batch_norm(&mut self, x: TensorId, p: &Scope, activation: Activation) -> Result<TensorId> {
        let (gamma, beta) = self.norm_parameters(x, p)?;
        let (running, train) = self.batch_statistics(p)?;
        let (rows, width) = (self.rows(x), self.width(x));
        let y = self.push(Op::BatchNorm { gamma, beta, running, train, activation }, &[x], rows, &[width]);
        self.keep_statistics(y, width);
        Ok(y)
    }

    /// Running statistics of the norm of a scope, and whether they are those of training: where it is not frozen.
    fn batch_statistics(&self, p: &Scope) -> Result<([Vector; 2], bool)> {
        let running = [p.vector("running_mean")?, p.vector("running_var")?];
        Ok((running, self.training() && !self.frozen.contains(&format!("{}.weight", p.name()))))
    }

    fn keep_statistics(&mut self, y: TensorId, width: usize) {
        let name = format!("{}.statistics", self.graph.tensor(y).name);
        let kept = self.tensor(name, Rows::fixed(2), width, Element::Real, Place::Arena);
        self.graph.nodes.last_mut().expect("just pushed").outputs.push(Some(kept));
    }

    /// [`Builder::batch_norm`] by the scope `norm` of a linear layer by `layer`, of an input with few columns; see [`Op::LinearNorm`].
    ///
    /// # Errors
    /// A missing parameter or a width that does not fit; x is no input.
    pub fn linear_norm(&mut self, x: TensorId, layer: &Scope, norm: &Scope, activation: Activation) -> Result<TensorId> {
        let (weight, bias) = (layer.matrix("weight")?, layer.vector("bias")?);
        let [gamma, beta] = [norm.vector("weight")?, norm.vector("bias")?];
        let (running, train) = self.batch_statistics(norm)?;
        let k = self.width(x);
        let fits = weight.columns == k && [bias, gamma, beta].iter().all(|v| v.len == weight.rows);
        let few = (1..=MOST_MOMENTS).contains(&k) && matches!(self.graph.tensor(x).place, Place::Input(_));
        self.check(fits && few, || format!("linear_norm '{}': x has width {k}, or is no input", layer.name()))?;
        let rows = self.rows(x);
        let y = self.push(Op::LinearNorm { weight, bias, gamma, beta, running, train, activation }, &[x], rows, &[weight.rows]);
        let (name, width) = (format!("{}.folded", self.graph.tensor(y).name), Folded::new(weight.rows, k).covariance.end);
        let kept = self.tensor(name, Rows::fixed(1), width, Element::Real, Place::Arena);
        self.graph.nodes.last_mut().expect("just pushed").outputs.push(Some(kept));
        Ok(y)
    }

    /// Fourier features of one column with the frequencies `[bands]`: `[rows, 2 * bands + 1]`.
    ///
    /// # Errors
    /// No such column.
    pub fn fourier(&mut self, x: TensorId, channel: usize, frequencies: Vector) -> Result<TensorId> {
        self.check(channel < self.width(x), || format!("fourier: no column {channel}"))?;
        let rows = self.rows(x);
        Ok(self.push(Op::Fourier { frequencies, channel }, &[x], rows, &[2 * frequencies.len + 1]))
    }

    /// Rows of x by an index list: `[rows, width]`.
    pub fn gather(&mut self, x: TensorId, index: usize, rows: Rows) -> TensorId {
        let width = self.width(x);
        self.push(Op::Gather { index }, &[x], rows, &[width])
    }

    /// Operands one below the other; `rows` is their sum.
    ///
    /// # Errors
    /// Widths differ.
    pub fn concat(&mut self, parts: &[TensorId], rows: Rows) -> Result<TensorId> {
        let width = self.width(parts[0]);
        self.check(parts.iter().all(|&p| self.width(p) == width), || "concat: widths differ".into())?;
        Ok(self.push(Op::Concat, parts, rows, &[width]))
    }

    /// Column maxima of segments of rows of a linear layer with `weight` and `bias` of the scope; see [`Op::LinearMax`].
    ///
    /// # Errors
    /// A missing parameter or a width that does not fit.
    pub fn linear_max(&mut self, x: TensorId, p: &Scope, segments: usize, rows: Rows) -> Result<TensorId> {
        let (weight, bias) = self.linear_max_parameters(x, p)?;
        let y = self.push(Op::LinearMax { weight, bias, segments }, &[x], rows, &[weight.rows]);
        self.keep_rows_of_maxima(y);
        Ok(y)
    }

    /// [`Builder::linear_max`] of [`Builder::batch_norm`] by the scope `norm` with ReLU, whose rows are not kept either.
    ///
    /// # Errors
    /// A missing parameter or a width that does not fit.
    pub fn norm_linear_max(&mut self, x: TensorId, norm: &Scope, p: &Scope, segments: usize, rows: Rows) -> Result<TensorId> {
        let ((gamma, beta), (weight, bias)) = (self.norm_parameters(x, norm)?, self.linear_max_parameters(x, p)?);
        let (running, train) = self.batch_statistics(norm)?;
        let op = Op::NormLinearMax { gamma, beta, running, train, weight, bias, segments };
        let y = self.push(op, &[x], rows, &[weight.rows]);
        self.keep_rows_of_maxima(y);
        self.keep_statistics(y, gamma.len);
        Ok(y)
    }

    fn linear_max_parameters(&self, x: TensorId, p: &Scope) -> Result<(Matrix, Vector)> {
        let (weight, bias) = (p.matrix("weight")?, p.vector("bias")?);
        self.check(weight.columns == self.width(x), || format!("linear_max '{}': x has width {}", p.name(), self.width(x)))?;
        Ok((weight, bias))
    }

    fn keep_rows_of_maxima(&mut self, y: TensorId) {
        let (name, rows, width) = (format!("{}.row", self.graph.tensor(y).name), self.rows(y), self.width(y));
        let kept = self.tensor(name, rows, width, Element::Index, Place::Arena);
        self.graph.nodes.last_mut().expect("just pushed").outputs.push(Some(kept));
    }

    /// Two linear layers with nothing between them, plus the rows of z that an index list assigns; see [`Op::LinearPair`].
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn linear_pair(
        &mut self,
        x: TensorId,
        inner: (Matrix, Vector),
        outer: (Matrix, Vector),
        z: TensorId,
        index: usize,
    ) -> Result<TensorId> {
        let ((inner, inner_bias), (outer, outer_bias)) = (inner, outer);
        let fits = inner.columns == self.width(x) && inner.rows == outer.columns && outer.rows == self.width(z);
        self.check(fits && inner_bias.len == inner.rows && outer_bias.len == outer.rows, || {
            format!("linear_pair: widths {}, {inner:?}, {outer:?}, {} do not fit", self.width(x), self.width(z))
        })?;
        let rows = self.rows(x);
        let y = self.push(Op::LinearPair { inner, inner_bias, outer, outer_bias, index }, &[x, z], rows, &[outer.rows]);
        let name = format!("{}.product", self.graph.tensor(y).name);
        let kept = self.tensor(name, Rows::fixed(1), outer.rows * (inner.columns + 1), Element::Real, Place::Arena);
        self.graph.nodes.last_mut().expect("just pushed").outputs.push(Some(kept));
        Ok(y)
    }

    /// x plus the rows of z that `map` assigns.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn add(&mut self, x: TensorId, z: TensorId, map: RowMap) -> Result<TensorId> {
        let (a, b) = (self.graph.tensor(x), self.graph.tensor(z));
        let rows_fit = match map {
            RowMap::Same => a.rows == b.rows,
            RowMap::Periodic(n) => b.rows == Rows::fixed(n) && a.rows.times % n == 0,
            RowMap::Grouped(n) => b.rows.times(n) == a.rows,
        };
        self.check(rows_fit && a.width == b.width, || format!("add: {:?}x{} and {:?}x{} with {map:?}", a.rows, a.width, b.rows, b.width))?;
        let (rows, width) = (a.rows, a.width);
        Ok(self.push(Op::Add { map }, &[x, z], rows, &[width]))
    }

    /// `y[i * M + m]` = `x[i]` + `z[m]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn outer(&mut self, x: TensorId, z: TensorId) -> Result<TensorId> {
        let (a, b) = (self.graph.tensor(x), self.graph.tensor(z));
        self.check(a.width == b.width && b.rows.symbol.is_none(), || "outer: shapes do not fit".into())?;
        let (rows, width) = (a.rows.times(b.rows.times), a.width);
        Ok(self.push(Op::Outer, &[x, z], rows, &[width]))
    }

    /// Dropout in training, x itself otherwise.
    pub fn dropout(&mut self, x: TensorId, rate: f64) -> TensorId {
        if !self.training() || rate == 0.0 {
            return x;
        }
        let (rows, width) = (self.rows(x), self.width(x));
        self.push(Op::Dropout { rate }, &[x], rows, &[width])
    }

    /// x + z with dropout of elements and of whole groups of rows of z in training.
    ///
    /// # Errors
    /// Shapes differ.
    pub fn residual(
        &mut self,
        x: TensorId,
        z: TensorId,
        dropout: f64,
        drop_path: f64,
        group: usize,
        group_index: Option<usize>,
    ) -> Result<TensorId> {
        if !self.training() || (dropout == 0.0 && drop_path == 0.0) {
            return self.add(x, z, RowMap::Same);
        }
        let (a, b) = (self.graph.tensor(x), self.graph.tensor(z));
        self.check(a.rows == b.rows && a.width == b.width, || "residual: shapes differ".into())?;
        let (rows, width) = (a.rows, a.width);
        Ok(self.push(Op::Residual { dropout, drop_path, group, group_index }, &[x, z], rows, &[width]))
    }

    /// Multi-head attention; rates count in training only.
    ///
    /// # Errors
    /// Columns or heads do not fit.
    pub fn attention(&mut self, q: TensorId, k: TensorId, v: TensorId, mut spec: Attention) -> Result<TensorId> {
        let width = spec.heads * spec.head_width;
        let fits = [q, k, v].iter().zip(spec.offsets).all(|(&t, offset)| offset + width <= self.width(t));
        self.check(fits && self.rows(k) == self.rows(v), || "attention: operands do not fit the heads".into())?;
        if !self.training() {
            spec.dropout = 0.0;
            spec.key_dropout = None;
        }
        let (rows, heads) = (self.rows(q), spec.heads);
        Ok(self.push(Op::Attention(spec), &[q, k, v], rows, &[width, heads]))
    }

    /// 1-D neighborhood attention on `[n * length, 3 * C]`, giving `[n * length, C]`.
    ///
    /// # Errors
    /// Sizes do not fit.
    pub fn neighborhood(&mut self, qkv: TensorId, length: usize, heads: usize, window: usize, bias: Vector) -> Result<TensorId> {
        let width = self.width(qkv) / 3;
        let fits = width * 3 == self.width(qkv) && width.is_multiple_of(heads) && window <= length && bias.len == heads * (2 * window - 1);
        self.check(fits && self.rows(qkv).times.is_multiple_of(length), || {
            format!("neighborhood: width {width}, length {length}, heads {heads}, window {window} do not fit")
        })?;
        let rows = self.rows(qkv);
        Ok(self.push(Op::Neighborhood { length, heads, window, bias }, &[qkv], rows, &[width]))
    }

    /// Rows of a convolution with kernel 3 at some positions of each sequence: `[n * positions, 3 * C]`.
    ///
    /// # Errors
    /// Rows are no whole sequences.
    pub fn unfold(&mut self, x: TensorId, length: usize, positions: Vec<usize>) -> Result<TensorId> {
        let rows = self.sequences(x, length)?.times(positions.len());
        let width = 3 * self.width(x);
        Ok(self.push(Op::Unfold { length, positions }, &[x], rows, &[width]))
    }

    /// Weighted sums over the rows of each sequence: `[n * weights, C]`.
    ///
    /// # Errors
    /// Rows are no whole sequences.
    pub fn mix(&mut self, x: TensorId, length: usize, weights: Vec<Vec<(usize, f64)>>) -> Result<TensorId> {
        let rows = self.sequences(x, length)?.times(weights.len());
        let width = self.width(x);
        Ok(self.push(Op::Mix { length, weights }, &[x], rows, &[width]))
    }

    /// Rows of K operands in turn.
    ///
    /// # Errors
    /// Shapes differ.
    pub fn interleave(&mut self, parts: &[TensorId]) -> Result<TensorId> {
        let (rows, width) = (self.rows(parts[0]), self.width(parts[0]));
        self.check(parts.iter().all(|&p| self.rows(p) == rows && self.width(p) == width), || "interleave: shapes differ".into())?;
        Ok(self.push(Op::Interleave, parts, rows.times(parts.len()), &[width]))
    }

    /// Pairs of K operands side by side in every step: `[rows, steps * 2K]`.
    ///
    /// # Errors
    /// Shapes differ.
    pub fn join_steps(&mut self, parts: &[TensorId], steps: usize) -> Result<TensorId> {
        let rows = self.rows(parts[0]);
        let fits = parts.iter().all(|&p| self.rows(p) == rows && self.width(p) == steps * 2);
        self.check(fits, || "join_steps: shapes differ".into())?;
        Ok(self.push(Op::JoinSteps { steps }, parts, rows, &[steps * 2 * parts.len()]))
    }

    /// A scalar made by a loss operation.
    pub fn loss(&mut self, op: Op, operands: &[TensorId]) -> TensorId {
        self.push(op, operands, Rows::fixed(1), &[1])
    }

    /// Sums and counts of measures; `operands` and index slots are those of [`Op::Metrics`].
    ///
    /// # Errors
    /// Widths do not fit.
    pub fn metrics(
        &mut self,
        operands: [TensorId; 6],
        steps: usize,
        [candidates, tokens, scenarios]: [usize; 3],
        measures: Vec<Measure>,
    ) -> Result<TensorId> {
        let widths = [6 * steps, 1, 6 * steps, 6 * steps, 6 * steps, steps];
        let fits = operands.iter().zip(widths).all(|(&x, width)| self.width(x) == width);
        let most = |measure: &Measure| if let Subject::Ego(most) = measure.subject { most } else { 1 };
        let few = measures.iter().all(|measure| (1..=MOST_CANDIDATES).contains(&most(measure)));
        self.check(fits && few && steps > 0, || format!("metrics: operands are not of {steps} steps, or candidates are too many"))?;
        let width = 2 * measures.len();
        Ok(self.push(Op::Metrics { steps, candidates, tokens, scenarios, measures }, &operands, Rows::fixed(1), &[width]))
    }

    fn sequences(&self, x: TensorId, length: usize) -> Result<Rows> {
        let rows = self.rows(x);
        self.check(rows.times.is_multiple_of(length), || format!("{rows:?} rows are no sequences of {length}"))?;
        Ok(Rows { symbol: rows.symbol, times: rows.times / length })
    }

    fn norm_parameters(&self, x: TensorId, p: &Scope) -> Result<(Vector, Vector)> {
        let (gamma, beta) = (p.vector("weight")?, p.vector("bias")?);
        self.check(gamma.len == self.width(x), || format!("norm '{}': x has width {}", p.name(), self.width(x)))?;
        Ok((gamma, beta))
    }

    fn check(&self, ok: bool, message: impl FnOnce() -> String) -> Result<()> {
        if ok { Ok(()) } else { Err(Error::Graph(format!("{}: {}", self.scope.join("."), message()))) }
    }

    fn tensor(&mut self, name: String, rows: Rows, width: usize, element: Element, place: Place) -> TensorId {
        self.graph.tensors.push(Tensor { name, rows, width, element, place });
        TensorId(self.graph.tensors.len() - 1)
    }

    /// Appends a forward node; `widths` are those of the result and of what is kept beside it.
    fn push(&mut self, op: Op, inputs: &[TensorId], rows: Rows, widths: &[usize]) -> TensorId {
        let name = format!("{}.{}", self.scope.join("."), op.name());
        let outputs: Vec<TensorId> = widths.iter().map(|&w| self.tensor(name.clone(), rows, w, Element::Real, Place::Arena)).collect();
        self.streams += 1;
        self.graph.nodes.push(Node {
            name,
            op,
            pass: Pass::Forward,
            inputs: inputs.iter().copied().map(Some).collect(),
            operands: inputs.to_vec(),
            outputs: outputs.iter().copied().map(Some).collect(),
            accumulate: Vec::new(),
            stream: self.streams,
        });
        outputs[0]
    }
}
