//! Updates, buffers and bad feeds of the CPU backend, and forward values against formulas written out.

mod support;

use support::{naive, random};
use training_engine::{
    backend::{Backend, Buffer, Clip, Rule, Update, cpu},
    graph::{
        Activation, Attention, Builder, Feed, Mode, Op, Parameters, Plan, Reals, RowMap, Rows, Scalar, Step, Symbol, TensorId, Vector,
        autodiff,
        random::{threshold, word},
    },
};

const STEP: Step = Step { seed: 5, step: 3 };

/// Runs a graph of one symbol in evaluation or training mode and gives the result.
struct Run {
    parameters: Parameters,
    values: Vec<f64>,
    inputs: Vec<Vec<f64>>,
    indexes: Vec<Vec<i32>>,
}

impl Run {
    fn new(parameters: &[(&str, &[usize])]) -> Self {
        let mut table = Parameters::default();
        parameters.iter().for_each(|(name, shape)| table.push((*name).into(), shape, false));
        let values = random(8, table.len());
        Self { parameters: table, values, inputs: Vec::new(), indexes: Vec::new() }
    }
    fn input(mut self, values: &[f64]) -> Self {
        self.inputs.push(values.to_vec());
        self
    }
    fn index(mut self, values: &[i32]) -> Self {
        self.indexes.push(values.to_vec());
        self
    }
    fn parameter(&self, name: &str) -> &[f64] {
        &self.values[self.parameters.get(name).unwrap().range()]
    }
    fn feed(&self, counts: &[usize]) -> Feed {
        let mut feed = Feed {
            counts: counts.to_vec(),
            reals: Reals::new(Scalar::F64),
            real_slots: Vec::new(),
            indexes: Vec::new(),
            index_slots: Vec::new(),
        };
        for values in &self.inputs {
            let start = feed.reals.len();
            values.iter().for_each(|&v| feed.reals.push(v));
            feed.real_slots.push(start..feed.reals.len());
        }
        for values in &self.indexes {
            let start = feed.indexes.len();
            feed.indexes.extend(values);
            feed.index_slots.push(start..feed.indexes.len());
        }
        feed
    }
    fn check(&self, counts: &[usize], expected: &[f64], record: impl Fn(&mut Builder, &Parameters) -> TensorId) {
        let mut b = Builder::new(Mode::Train);
        let y = record(&mut b, &self.parameters);
        let plan = Plan::new(b.finish(), counts.to_vec());
        let mut backend = cpu::new(Scalar::F64, 2, self.parameters.len(), 0).unwrap();
        backend.write(Buffer::Parameters, &self.values).unwrap();
        let feed = self.feed(counts);
        backend.run(&plan, &feed, &STEP).unwrap();
        let y = backend.output(&plan, &feed, y).unwrap().to_vec();
        assert_eq!(y.len(), expected.len());
        for (i, (y, e)) in y.iter().zip(expected).enumerate() {
            assert!((y - e).abs() <= 1e-12 * e.abs().max(1.0), "element {i}: {y}, expected {e}");
        }
    }
}

const N: Rows = Rows::of(Symbol(0));

#[test]
fn products_and_norms() {
    let (rows, k, n) = (37, 6, 5);
    let x = random(1, rows * k);
    let run = Run::new(&[("l.weight", &[n, k]), ("l.bias", &[n]), ("n.weight", &[k]), ("n.bias", &[k])]).input(&x);
    let product = naive::linear(&x, run.parameter("l.weight"), run.parameter("l.bias"));
    for (activation, f) in [
        (Activation::None, (|x| x) as fn(f64) -> f64),
        (Activation::Relu, |x| x.max(0.0)),
        (Activation::Gelu, |x| 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt()))),
    ] {
        let expected: Vec<f64> = product.iter().map(|&v| f(v)).collect();
        run.check(&[rows], &expected, |b, p| {
            let x = b.input("x", 0, N, k);
            b.linear(x, &p.root().at("l"), activation).unwrap()
        });
    }
    let expected: Vec<f64> = x
        .chunks(k)
        .flat_map(|row| naive::normalised(row).into_iter().enumerate())
        .map(|(c, h)| (h * run.parameter("n.weight")[c] + run.parameter("n.bias")[c]).max(0.0))
        .collect();
    run.check(&[rows], &expected, |b, p| {
        let x = b.input("x", 0, N, k);
        b.layer_norm(x, &p.root().at("n"), Activation::Relu).unwrap()
    });
}

#[test]
fn batch_norm_and_its_running_statistics() {
    let (rows, n) = (301, 3);
    let x = random(1, rows * n);
    let mut parameters = Parameters::default();
    for (name, statistic) in [("weight", false), ("bias", false), ("running_mean", true), ("running_var", true)] {
        parameters.push(name.into(), &[n], statistic);
    }
    let mut b = Builder::new(Mode::Train);
    let input = b.input("x", 0, N, n);
    let y = b.batch_norm(input, &parameters.root(), Activation::None).unwrap();
    let plan = Plan::new(b.finish(), vec![rows]);
    let mut backend = cpu::new(Scalar::F64, 2, 2 * n, 2 * n).unwrap();
    backend.write(Buffer::Parameters, &[2.0, 2.0, 2.0, 0.5, 0.5, 0.5]).unwrap();
    backend.write(Buffer::Statistics, &[1.0, 1.0, 1.0, 3.0, 3.0, 3.0]).unwrap();
    let feed = Run::new(&[]).input(&x).feed(&[rows]);
    backend.run(&plan, &feed, &STEP).unwrap();
    let y = backend.output(&plan, &feed, y).unwrap().to_vec();
    let pending = backend.read(Buffer::PendingStatistics).unwrap();
    for c in 0..n {
        let column: Vec<f64> = x.chunks(n).map(|row| row[c]).collect();
        for (r, h) in naive::normalised(&column).into_iter().enumerate() {
            assert!((y[r * n + c] - (2.0 * h + 0.5)).abs() < 1e-12);
        }
        let mean = column.iter().sum::<f64>() / rows as f64;
        let variance = column.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (rows - 1) as f64;
        assert!((pending[c] - (0.9 + 0.1 * mean)).abs() < 1e-14 && (pending[n + c] - (2.7 + 0.1 * variance)).abs() < 1e-14);
    }
    assert_eq!(backend.read(Buffer::Statistics).unwrap(), [1.0, 1.0, 1.0, 3.0, 3.0, 3.0]);
    let none = Run::new(&[]).input(&[]).feed(&[0]);
    backend.run(&plan, &none, &STEP).unwrap();
    assert_eq!(backend.read(Buffer::PendingStatistics).unwrap(), pending, "no rows change nothing");
}

#[test]
fn attention_over_strided_segments_with_dropout() {
    let (rows, heads, width) = (7, 2, 3);
    let x = random(1, rows * 18);
    let list = [0, 3, 2, 0, 3, 2, 1, 2, 2, 3, 2, 3, 6, 1, 1, 0, 0, 1, 5, 1, 1, 0, 7, 1];
    let rate = 0.4;
    // The result is the first output; numbers of the first node are those of stream 1.
    let mut expected = vec![0.0; rows * heads * width];
    for s in list.chunks(6) {
        for head in 0..heads {
            for query in (0..s[1]).map(|i| (s[0] + i * s[2]) as usize) {
                let q = &x[query * 18 + head * width..][..width];
                let keys: Vec<usize> = (0..s[4]).map(|j| (s[3] + j * s[5]) as usize).collect();
                let dot = |key: &usize| (0..width).map(|c| q[c] * x[key * 18 + 6 + head * width + c]).sum::<f64>() / 3f64.sqrt();
                let weights: Vec<f64> = keys.iter().map(|key| dot(key).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (position, (key, weight)) in keys.iter().zip(&weights).enumerate() {
                    let dropped = word(&STEP, 1, (head + heads * query) as u32, position as u32) < threshold(rate);
                    let kept = if dropped { 0.0 } else { 1.0 / (1.0 - rate) };
                    for c in 0..width {
                        expected[query * 6 + head * width + c] += weight / total * kept * x[key * 18 + 12 + head * width + c];
                    }
                }
            }
        }
    }
    Run::new(&[]).input(&x).index(&list).check(&[rows], &expected, |b, _| {
        let x = b.input("x", 0, N, 18);
        let spec = Attention { heads, head_width: width, offsets: [0, 6, 12], segments: 0, dropout: rate, key_dropout: None, group: None };
        b.attention(x, x, x, spec).unwrap()
    });
}

#[test]
fn neighborhood() {
    let (length, window, heads, size) = (6, 3, 2, 2);
    let (n, c) = (3, heads * size);
    let x = random(1, n * length * 3 * c);
    let run = Run::new(&[("rpb", &[heads, 2 * window - 1])]).input(&x);
    let mut expected = Vec::new();
    for row in 0..n * length {
        let (sequence, i) = (row / length, row % length);
        let first = i.saturating_sub(1).min(length - window);
        for head in 0..heads {
            let at = |token: usize, part: usize| &x[((sequence * length + token) * 3 + part) * c + head * size..][..size];
            let score = |j: usize| {
                let dot: f64 = at(i, 0).iter().zip(at(j, 1)).map(|(q, k)| q * k).sum();
                (dot / 2f64.sqrt() + run.parameter("rpb")[head * 5 + j + window - 1 - i]).exp()
            };
            let total: f64 = (first..first + window).map(score).sum();
            expected.extend((0..size).map(|c| (first..first + window).map(|j| score(j) / total * at(j, 2)[c]).sum::<f64>()));
        }
    }
    run.check(&[n], &expected, |b, p| {
        let x = b.input("x", 0, N.times(length), 3 * c);
        b.neighborhood(x, length, heads, window, p.root().vector("rpb").unwrap()).unwrap()
    });
}

#[test]
fn maxima() {
    let x = random(1, 9 * 2);
    let list = [0, 4, 0, 4, 2, 1, 6, 0, 0, 6, 3, 0];
    let run = Run::new(&[("l.weight", &[3, 2]), ("l.bias", &[3])]).input(&x).index(&list);
    let product = naive::linear(&x, run.parameter("l.weight"), run.parameter("l.bias"));
    let most = |rows: std::ops::Range<usize>, start: f64| -> Vec<f64> {
        (0..3).map(|c| rows.clone().map(|r| product[r * 3 + c]).fold(start, f64::max)).collect()
    };
    let expected = [most(0..4, f64::NEG_INFINITY), most(4..6, 0.0), vec![0.0; 3], most(6..9, f64::NEG_INFINITY)].concat();
    run.check(&[9, 4], &expected, |b, p| {
        let x = b.input("x", 0, N, 2);
        b.linear_max(x, &p.root().at("l"), 0, Rows::of(Symbol(1))).unwrap()
    });
}

#[test]
fn rows_that_are_moved_and_added() {
    let x: Vec<f64> = (0..12).map(f64::from).collect();
    let run = || Run::new(&[]).input(&x);
    let pick = |rows: &[usize]| rows.iter().flat_map(|&r| x[r * 2..r * 2 + 2].to_vec()).collect::<Vec<f64>>();
    run().index(&[5, 0, 5]).check(&[6, 3], &pick(&[5, 0, 5]), |b, _| {
        let x = b.input("x", 0, N, 2);
        b.gather(x, 0, Rows::of(Symbol(1)))
    });
    run().check(&[6], &pick(&[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]), |b, _| {
        let x = b.input("x", 0, N, 2);
        b.interleave(&[x, x]).unwrap()
    });
    // Two sequences of three rows of two columns; convolution rows have the taps of a column beside each other.
    run().check(
        &[2],
        &[0.0, 0.0, 2.0, 0.0, 1.0, 3.0, 2.0, 4.0, 0.0, 3.0, 5.0, 0.0, 0.0, 6.0, 8.0, 0.0, 7.0, 9.0, 8.0, 10.0, 0.0, 9.0, 11.0, 0.0],
        |b, _| {
            let x = b.input("x", 0, N.times(3), 2);
            b.unfold(x, 3, vec![0, 2]).unwrap()
        },
    );
    run().check(&[2], &[1.0, 2.0, 7.0, 8.0], |b, _| {
        let x = b.input("x", 0, N.times(3), 2);
        b.mix(x, 3, vec![vec![(0, 0.5), (1, 0.5)]]).unwrap()
    });
    run().check(
        &[3],
        &[0.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0, 3.0, 4.0, 5.0, 4.0, 5.0, 6.0, 7.0, 6.0, 7.0, 8.0, 9.0, 8.0, 9.0, 10.0, 11.0, 10.0, 11.0],
        |b, _| {
            let x = b.input("x", 0, N, 4);
            b.join_steps(&[x, x], 2).unwrap()
        },
    );
    let sums: Vec<f64> = (0..12).map(|i| x[i] + x[i / 6 * 2 + i % 2]).collect();
    run().input(&x[..4]).check(&[2], &sums, |b, _| {
        let (x, z) = (b.input("x", 0, N.times(3), 2), b.input("z", 1, N, 2));
        b.add(x, z, RowMap::Grouped(3)).unwrap()
    });
}

/// F.smooth_l1_loss, F.cross_entropy, F.grid_sample and F.normalize by hand on small numbers.
#[test]
fn losses() {
    let run = Run::new(&[]).input(&[0.5, 3.0, -1.0, 9.0]).input(&[0.0, 0.0, 1.0, 9.0, 0.0, 0.0]).input(&[1.0, 1.0, 0.0]);
    run.check(&[3], &[(0.125 + 1.5) / 2.0], |b, _| {
        let (x, target, valid) = (b.input("x", 0, N, 1), b.input("t", 1, N, 2), b.input("v", 2, N, 1));
        b.loss(Op::SmoothL1 { steps: 1, channels: 1, target_channels: 2 }, &[x, target, valid])
    });
    let run = Run::new(&[]).input(&[1.0, 2.0, 0.0, 5.0]).index(&[0, 3, 3, 1]).index(&[0, 3]);
    run.check(&[4], &[((1f64.exp() + 2f64.exp() + 1.0).ln() - 1.0) / 2.0], |b, _| {
        let x = b.input("x", 0, N, 1);
        b.loss(Op::CrossEntropy { segments: 0, target: 1 }, &[x])
    });
    let run = Run::new(&[]).input(&[9.0, 9.0, 3.0, 4.0, 9.0, 9.0, 0.0, 0.5]);
    run.check(&[2], &[(4.0 + 0.5) / 2.0], |b, _| {
        let x = b.input("x", 0, N, 4);
        b.loss(Op::UnitNorm { steps: 1, channels: 4 }, &[x])
    });
    // The ego stands in the middle of 4 x 4 pixels: half a pixel from the four inner ones.
    let map: Vec<f64> = (0..16).map(f64::from).collect();
    let mean = (5.0 + 6.0 + 9.0 + 10.0) / 4.0;
    let run = Run::new(&[]).input(&[0.0, 0.0, 1.0, 0.0]).input(&map);
    run.check(&[1], &[(10.0 - mean) / (1.0 + 1e-6)], |b, _| {
        let (x, map) = (b.input("x", 0, N, 4), b.input("map", 1, N, 16));
        b.loss(Op::Collision { steps: 1, channels: 4, size: 4, discs: vec![0.0], radius: 10.0, resolution: 1.0 }, &[x, map])
    });
    let run = Run::new(&[]).input(&[2.0, 0.0, 3.0, 3.0, 0.0, 1.0]).index(&[0, 1, 2]);
    run.check(&[3], &[(1.0 + (-(0.5f64.sqrt()) / 0.5).exp()).ln()], |b, _| {
        let x = b.input("x", 0, N, 2);
        b.loss(Op::Triplet { triplets: 0, temperature: 0.5 }, &[x])
    });
}

/// A backend whose gradient is known: that of the mean of | ‖(c2, c3)‖ - 1 | over rows of four `values`.
fn with_gradient(values: &[f64]) -> (Box<dyn Backend>, Plan, Feed) {
    let mut parameters = Parameters::default();
    parameters.push("p".into(), &[values.len() / 4, 4], false);
    let mut b = Builder::new(Mode::Train);
    let p = b.parameter(&parameters.root(), "p").unwrap();
    let loss = b.loss(Op::UnitNorm { steps: 1, channels: 4 }, &[p]);
    let mut graph = b.finish();
    autodiff::differentiate(&mut graph, loss, &parameters, &[]).unwrap();
    let plan = Plan::new(graph, vec![1]);
    let mut backend = cpu::new(Scalar::F64, 2, values.len(), 0).unwrap();
    backend.write(Buffer::Parameters, values).unwrap();
    (backend, plan, Run::new(&[]).feed(&[1]))
}

#[test]
fn more_parameters_than_memory_are_an_error() {
    let error = cpu::new(Scalar::F32, 1, 1 << 52, 0).err().unwrap().to_string();
    assert!(error.contains("MiB for the parameters"), "{error}");
}

#[test]
fn updates_follow_adamw() {
    let mut p = random(3, 40_000);
    let (mut backend, plan, feed) = with_gradient(&p);
    let (mut m, mut v) = (vec![0.0; p.len()], vec![0.0; p.len()]);
    let (rate, decay, clip) = (0.01, 0.1, 1e-3);
    for count in 1..=4 {
        backend.run(&plan, &feed, &STEP).unwrap();
        let g = backend.read(Buffer::Gradients).unwrap();
        let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
        assert!(norm > clip, "{norm}");
        let rule = Rule::AdamW { beta: [0.9, 0.99], epsilon: 1e-8 };
        let update = Update { rule, learning_rate: rate, weight_decay: decay, count, scale: 1.0, clip: Some(Clip::Norm(clip)) };
        let done = backend.update(&update, &[Vector { offset: 5, len: 30_000 }]).unwrap();
        assert!(done.applied && (done.gradient_norm / norm - 1.0).abs() < 1e-12);
        for i in 0..p.len() {
            let g = g[i] * clip / (norm + 1e-6);
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.99 * v[i] + 0.01 * g * g;
            if (5..30_005).contains(&i) {
                p[i] -= rate * decay * p[i];
            }
            let (m, v) = (m[i] / (1.0 - 0.9f64.powi(count as i32)), v[i] / (1.0 - 0.99f64.powi(count as i32)));
            p[i] -= rate * m / (v.sqrt() + 1e-8);
        }
        let now = backend.read(Buffer::Parameters).unwrap();
        assert!(now.iter().zip(&p).all(|(a, b)| (a - b).abs() < 1e-12), "update {count}");
        assert!(backend.read(Buffer::Gradients).unwrap().iter().all(|&g| g == 0.0));
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    for bad in [f64::NAN, f64::INFINITY] {
        let mut values = random(3, 400);
        values[202] = bad;
        let (mut backend, plan, feed) = with_gradient(&values);
        backend.run(&plan, &feed, &STEP).unwrap();
        assert!(!backend.output(&plan, &feed, TensorId(1)).unwrap().get(0).is_finite(), "the loss shows it");
        let buffers = [Buffer::Parameters, Buffer::FirstMoments, Buffer::SecondMoments, Buffer::Statistics];
        let bits = |backend: &dyn Backend| buffers.map(|b| backend.read(b).unwrap().iter().map(|v| v.to_bits()).collect::<Vec<u64>>());
        let before = bits(&*backend);
        backend.write(Buffer::Gradients, &vec![bad; 400]).unwrap();
        let rule = Rule::AdamW { beta: [0.9, 0.99], epsilon: 1e-8 };
        let update = Update { rule, learning_rate: 0.1, weight_decay: 0.1, count: 1, scale: 1.0, clip: Some(Clip::Norm(1.0)) };
        assert!(!backend.update(&update, &[Vector { offset: 0, len: 400 }]).unwrap().applied);
        assert!(bits(&*backend) == before);
        assert!(backend.read(Buffer::Gradients).unwrap().iter().all(|&g| g == 0.0));
    }
}

#[test]
fn feeds_that_do_not_fit_are_errors() {
    let mut b = Builder::new(Mode::Evaluate);
    let x = b.input("points", 0, N, 3);
    let y = b.add(x, x, RowMap::Same).unwrap();
    let plan = Plan::new(b.finish(), vec![4]);
    let mut backend = cpu::new(Scalar::F64, 1, 0, 0).unwrap();
    let feed = |rows: usize, numbers: usize| Run::new(&[]).input(&vec![1.0; numbers]).feed(&[rows]);
    backend.run(&plan, &feed(4, 12), &STEP).unwrap();
    for (bad, word) in [(feed(5, 15), "room"), (feed(4, 11), "points")] {
        let error = backend.run(&plan, &bad, &STEP).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let mut single = feed(4, 12);
    single.reals = Reals::F32(vec![1.0; 12]);
    assert!(backend.run(&plan, &single, &STEP).unwrap_err().to_string().contains("F32"));
    let mut cut = feed(4, 12);
    cut.index_slots.push(0..9);
    assert!(backend.run(&plan, &cut, &STEP).is_err());
    let halved = Plan::grouped(plan.graph.clone(), vec![4], |_, _| false, &[y]);
    assert!(backend.run(&halved, &feed(4, 12), &STEP).unwrap_err().to_string().contains("16 bits"));
    assert!(backend.write(Buffer::Parameters, &[1.0]).is_err());
}
