//! Every operation's gradient on the CPU against central differences, and what must not change it: precision, number of
//! threads, splitting a batch.

mod support;

use support::{Case, random};
use training_engine::graph::{Activation, Attention, Builder, Deviation, Measure, Op, RowMap, Rows, Scope, Subject, Symbol, TensorId};

const N: Rows = Rows::of(Symbol(0));

/// Row counts that are tried: none, one, odd ones beside powers of two, many.
const COUNTS: [usize; 6] = [0, 1, 2, 31, 33, 300];

#[test]
fn linear() {
    for activation in [Activation::None, Activation::Relu, Activation::Gelu] {
        for count in COUNTS {
            for (k, n) in [(1, 1), (31, 33), (10, 5), (36, 68)] {
                let mut case = Case::new(&[count]);
                case.parameter("l.weight", &[n, k]).parameter("l.bias", &[n]);
                case.check(k, |b, p, x| b.linear(x, &p.at("l"), activation).unwrap());
            }
        }
    }
}

/// So many that devices cut them into larger tiles, but those of the gradient of a small weight.
#[test]
fn linear_of_many_rows() {
    let (k, n, last) = (68, 72, 5);
    let mut case = Case::new(&[16_400]);
    case.many().parameter("l.weight", &[n, k]).parameter("l.bias", &[n]);
    case.parameter("s.weight", &[last, n]).parameter("s.bias", &[last]);
    case.check(k, |b, p, x| {
        let y = b.linear(x, &p.at("l"), Activation::Gelu).unwrap();
        b.linear(y, &p.at("s"), Activation::None).unwrap()
    });
}

#[test]
fn linear_parts_of_a_packed_weight() {
    let mut case = Case::new(&[33]);
    case.parameter("w", &[9, 7]).parameter("b", &[9]);
    case.check(4, |b, p, x| {
        let (w, bias) = (p.matrix("w").unwrap(), p.vector("b").unwrap());
        let rest = b.linear_part(x, w.row_range(3..9).column_range(3..7), Some(bias.part(3..9)), Activation::Relu).unwrap();
        let first = b.linear_part(x, w.row_range(0..3).column_range(0..4), Some(bias.part(0..3)), Activation::None).unwrap();
        let gate = b.linear_part(first, w.row_range(0..6).column_range(4..7), None, Activation::None).unwrap();
        let last = b.linear_part(first, w.row_range(3..9).column_range(0..3), None, Activation::Gelu).unwrap();
        let y = b.add(rest, gate, RowMap::Same).unwrap();
        b.add(y, last, RowMap::Same).unwrap()
    });
}

#[test]
fn layer_norm() {
    for activation in [Activation::None, Activation::Relu] {
        for count in COUNTS {
            for width in [2, 31, 33, 36] {
                let mut case = Case::new(&[count]);
                case.parameter("n.weight", &[width]).parameter("n.bias", &[width]);
                case.check(width, |b, p, x| b.layer_norm(x, &p.at("n"), activation).unwrap());
            }
        }
    }
}

#[test]
fn layer_norm_of_wide_rows() {
    for (activation, width, count) in
        [(Activation::None, 128, 33), (Activation::Relu, 128, 100), (Activation::Relu, 200, 9), (Activation::None, 300, 9)]
    {
        let mut case = Case::new(&[count]);
        case.parameter("n.weight", &[width]).parameter("n.bias", &[width]);
        case.check(width, |b, p, x| b.layer_norm(x, &p.at("n"), activation).unwrap());
    }
}

#[test]
fn batch_norm() {
    for activation in [Activation::None, Activation::Relu] {
        for count in COUNTS {
            for width in [1, 33, 132] {
                let mut case = Case::new(&[count]);
                case.parameter("n.weight", &[width]).parameter("n.bias", &[width]);
                case.statistic("n.running_mean", width).statistic("n.running_var", width);
                case.check(width, |b, p, x| b.batch_norm(x, &p.at("n"), activation).unwrap());
            }
        }
    }
}

/// Of an input, whose moments make the statistics. (Two rows may agree in a column, which single precision then has badly.)
#[test]
fn linear_norm() {
    for (activation, frozen) in [(Activation::Relu, false), (Activation::None, false), (Activation::Relu, true)] {
        for count in [0, 1, 5, 31, 33, 300] {
            for (k, n) in [(1, 1), (10, 33), (16, 132)] {
                let mut case = Case::new(&[count]);
                case.parameter("l.weight", &[n, k]).parameter("l.bias", &[n]).parameter("n.weight", &[n]).parameter("n.bias", &[n]);
                case.statistic("n.running_mean", n).statistic("n.running_var", n);
                let slot = case.input(random(7, count * k).iter().map(|x| 0.3 + x).collect());
                case.check(n, |b, p, x| {
                    if frozen {
                        b.freeze(&["n.weight".into()]);
                    }
                    let points = b.input("points", slot, N, k);
                    let y = b.linear_norm(points, &p.at("l"), &p.at("n"), activation).unwrap();
                    b.add(y, x, RowMap::Same).unwrap()
                });
            }
        }
    }
}

/// A frozen norm works as in evaluation.
#[test]
fn batch_norm_with_running_statistics() {
    for (activation, width, count) in [(Activation::None, 33, 31), (Activation::Relu, 132, 33), (Activation::Relu, 1, 0)] {
        let mut case = Case::new(&[count]);
        case.parameter("n.weight", &[width]).parameter("n.bias", &[width]);
        case.statistic("n.running_mean", width).statistic("n.running_var", width);
        case.check(width, |b, p, x| {
            b.freeze(&["n.weight".into()]);
            b.batch_norm(x, &p.at("n"), activation).unwrap()
        });
    }
}

#[test]
fn fourier() {
    for count in COUNTS {
        let mut case = Case::new(&[count]);
        case.parameter("f", &[2, 5]);
        let slot = case.input(random(7, count * 3));
        case.check(11, |b, p, x| {
            let v = b.input("v", slot, N, 3);
            let f = p.vector("f").unwrap();
            let one = b.fourier(v, 0, f.part(0..5)).unwrap();
            let two = b.fourier(v, 2, f.part(5..10)).unwrap();
            let y = b.add(one, two, RowMap::Same).unwrap();
            b.add(y, x, RowMap::Same).unwrap()
        });
    }
}

#[test]
fn gather() {
    for (count, from) in [(0, 3), (1, 1), (40, 3), (5, 31), (1000, 2)] {
        let mut case = Case::new(&[from, count]);
        let index = case.index((0..count).map(|i| ((i * i + 1) % from) as i32).collect());
        case.check(19, |b, _, x| b.gather(x, index, Rows::of(Symbol(1))));
        let mut case = Case::new(&[from, count]);
        let index = case.index((0..count).map(|i| (i % from) as i32).collect());
        case.check(1, |b, _, x| b.gather(x, index, Rows::of(Symbol(1))));
    }
}

#[test]
fn concat() {
    let mut case = Case::new(&[5, 15]);
    let slot = case.input(random(3, 5 * 7));
    case.check(7, |b, _, x| {
        let v = b.input("v", slot, N, 7);
        let z = b.add(v, x, RowMap::Same).unwrap();
        b.concat(&[x, v, z], Rows::of(Symbol(1))).unwrap()
    });
    let mut case = Case::new(&[5, 10]);
    case.check(3, |b, _, x| b.concat(&[x, x], Rows::of(Symbol(1))).unwrap());
    let mut case = Case::new(&[0, 0]);
    case.check(3, |b, _, x| b.concat(&[x, x], Rows::of(Symbol(1))).unwrap());
}

/// With and without a norm of its operand, of the batch or with running statistics.
#[test]
fn linear_max() {
    let lists: [(usize, Vec<i32>); 5] = [
        (12, vec![0, 3, 0, 3, 1, 1, 4, 0, 0, 4, 8, 1]),
        (0, vec![0, 0, 0, 0, 0, 1]),
        (9, vec![5, 3, 0, 1, 2, 0, 0, 9, 1]),
        (3, vec![]),
        (700, (0..4).flat_map(|s| [[0, 10, 0], [10, 300, 1], [310, 390, 0], [0, 0, 0]][s]).collect()),
    ];
    for (count, list) in lists {
        for (k, n) in [(1, 1), (31, 33), (16, 132)] {
            // Running statistics do not depend on sizes.
            for (norm, frozen) in [(false, false), (true, false), (true, true)].into_iter().filter(|(_, frozen)| !frozen || k == 31) {
                let mut case = Case::new(&[count, list.len() / 3]);
                case.parameter("l.weight", &[n, k]).parameter("l.bias", &[n]);
                if norm {
                    case.parameter("n.weight", &[k]).parameter("n.bias", &[k]);
                    case.statistic("n.running_mean", k).statistic("n.running_var", k);
                }
                let slot = case.index(list.clone());
                case.check(k, |b, p, x| {
                    if frozen {
                        b.freeze(&["n.weight".into()]);
                    }
                    let (layer, rows) = (p.at("l"), Rows::of(Symbol(1)));
                    if norm { b.norm_linear_max(x, &p.at("n"), &layer, slot, rows) } else { b.linear_max(x, &layer, slot, rows) }.unwrap()
                });
            }
        }
    }
}

/// Those of a pair of layers from k by m to n columns, whose second one also has m columns of z.
fn pair_parameters(case: &mut Case, [k, m, n]: [usize; 3], rows_of_z: usize) {
    case.parameter("a", &[m, k]).parameter("a_bias", &[m]).parameter("b", &[n, 2 * m]).parameter("b_bias", &[n]);
    case.parameter("z", &[rows_of_z, m]);
}

fn pair(b: &mut Builder, p: &Scope, x: TensorId, m: usize, index: usize) -> TensorId {
    let matrix = |name: &str| (p.matrix(name).unwrap(), p.vector(&format!("{name}_bias")).unwrap());
    let (outer, bias) = matrix("b");
    let z = b.parameter(p, "z").unwrap();
    let z = b.linear_part(z, outer.column_range(0..m), None, Activation::None).unwrap();
    b.linear_pair(x, matrix("a"), (outer.column_range(m..2 * m), bias), z, index).unwrap()
}

#[test]
fn linear_pair() {
    for (count, groups, sorted) in [(0, 0, true), (1, 1, true), (33, 5, false), (300, 7, true)] {
        for (k, m, n) in [(1, 1, 1), (31, 5, 33), (32, 8, 68)] {
            let mut case = Case::new(&[count]);
            pair_parameters(&mut case, [k, m, n], groups);
            let index = case.index((0..count).map(|i| (if sorted { i * groups / count } else { i * 3 % groups }) as i32).collect());
            case.check(k, |b, p, x| pair(b, p, x, m, index));
        }
    }
}

/// The pair leaves the norm its statistics; the last is of so many rows that devices cut them into larger tiles.
#[test]
fn linear_pair_before_a_norm() {
    for (count, many) in [(0, false), (1, false), (33, false), (300, false), (16_400, true)] {
        let (k, m, n, segments) = (6, 3, if many { 120 } else { 68 }, count / 8);
        let mut case = Case::new(&[count, segments]);
        if many {
            case.many();
        }
        pair_parameters(&mut case, [k, m, n], 1);
        case.parameter("n.weight", &[n]).parameter("n.bias", &[n]).statistic("n.running_mean", n).statistic("n.running_var", n);
        case.parameter("l.weight", &[4, n]).parameter("l.bias", &[4]);
        let index = case.index(vec![0; count]);
        let slot = case.index((0..segments as i32).flat_map(|s| [8 * s, 8, 0]).collect());
        case.check(k, |b, p, x| {
            let y = pair(b, p, x, m, index);
            b.norm_linear_max(y, &p.at("n"), &p.at("l"), slot, Rows::of(Symbol(1))).unwrap()
        });
    }
}

/// Two layers of a points encoder with norms and maxima; what only products look at is stored in 16 bits where these are of 16 bits.
#[test]
fn halves_between_products() {
    for (count, groups) in [(0, 1), (33, 5), (300, 40)] {
        let (k, h, m, n) = (6, 24, 3, 40);
        let mut case = Case::new(&[groups, count]);
        for (norm, width) in [("f", h), ("n", n)] {
            case.parameter(&format!("{norm}.weight"), &[width]).parameter(&format!("{norm}.bias"), &[width]);
            case.statistic(&format!("{norm}.running_mean"), width).statistic(&format!("{norm}.running_var"), width);
        }
        for (layer, rows, columns) in [("0", h, k), ("1", m, h), ("2", n, 2 * m), ("3", 4, n)] {
            case.parameter(&format!("{layer}.weight"), &[rows, columns]).parameter(&format!("{layer}.bias"), &[rows]);
        }
        let slot = case.input(random(7, count * k).iter().map(|x| 0.3 + x).collect());
        let of_point = case.index((0..count).map(|i| (i * groups / count) as i32).collect());
        let first = |g: usize| (g * count).div_ceil(groups) as i32;
        let segments = case.index((0..groups).flat_map(|g| [first(g), first(g + 1) - first(g), 0]).collect());
        case.check(m, |b, p, x| {
            let points = b.input("points", slot, Rows::of(Symbol(1)), k);
            let matrix = |layer: &str| (p.at(layer).matrix("weight").unwrap(), p.at(layer).vector("bias").unwrap());
            let (outer, bias) = matrix("2");
            let first = b.linear_norm(points, &p.at("0"), &p.at("f"), Activation::Relu).unwrap();
            let pooled = b.linear_max(first, &p.at("1"), segments, N).unwrap();
            let pooled = b.add(pooled, x, RowMap::Same).unwrap();
            let z = b.linear_part(pooled, outer.column_range(0..m), None, Activation::None).unwrap();
            let second = b.linear_pair(first, matrix("1"), (outer.column_range(m..2 * m), bias), z, of_point).unwrap();
            b.norm_linear_max(second, &p.at("n"), &p.at("3"), segments, N).unwrap()
        });
    }
}

/// A norm and two layers: what comes of the norm and of GELU is stored in 16 bits where products are of 16 bits, if rows of it are whole pieces.
#[test]
fn halves_between_norms_and_layers() {
    for count in [1, 70, 150] {
        for (k, m, n, activation) in [(24, 40, 9, Activation::Gelu), (200, 136, 3, Activation::Gelu), (16, 12, 8, Activation::Relu)] {
            let mut case = Case::new(&[count]);
            for (layer, rows, columns) in [("0", m, k), ("1", n, m)] {
                case.parameter(&format!("{layer}.weight"), &[rows, columns]).parameter(&format!("{layer}.bias"), &[rows]);
            }
            case.parameter("n.weight", &[k]).parameter("n.bias", &[k]);
            case.check(k, |b, p, x| {
                let y = b.layer_norm(x, &p.at("n"), Activation::None).unwrap();
                let y = b.linear(y, &p.at("0"), activation).unwrap();
                b.linear(y, &p.at("1"), Activation::None).unwrap()
            });
        }
    }
}

#[test]
fn add_and_outer() {
    for count in [0, 1, 33] {
        for width in [1, 31] {
            Case::new(&[count]).check(width, |b, _, x| b.add(x, x, RowMap::Same).unwrap());
            let mut case = Case::new(&[count]);
            case.parameter("z", &[4, width]);
            case.check(width, |b, p, x| {
                let z = b.parameter(p, "z").unwrap();
                let y = b.outer(x, z).unwrap();
                let y = b.add(y, z, RowMap::Periodic(4)).unwrap();
                b.add(y, x, RowMap::Grouped(4)).unwrap()
            });
        }
    }
}

#[test]
fn dropout() {
    for count in COUNTS {
        for width in [1, 8, 33] {
            Case::new(&[count]).check(width, |b, _, x| b.dropout(x, 0.3));
        }
    }
}

#[test]
fn residual() {
    for count in COUNTS {
        for (dropout, path, width) in [(0.3, 0.0, 9), (0.0, 0.4, 12), (0.2, 0.5, 9), (0.2, 0.5, 12)] {
            let mut case = Case::new(&[count]);
            let groups = case.index((0..count).map(|i| (i % 3) as i32).collect());
            case.parameter("n.weight", &[width]).parameter("n.bias", &[width]);
            case.check(width, |b, p, x| {
                let z = b.layer_norm(x, &p.at("n"), Activation::None).unwrap();
                let y = b.residual(x, z, dropout, path, 5, None).unwrap();
                b.residual(y, z, dropout, path, 0, Some(groups)).unwrap()
            });
        }
    }
}

#[test]
fn self_attention() {
    for (dropout, keys) in [(0.0, None), (0.3, None), (0.2, Some((1, 0.5))), (0.0, Some((0, 1.0)))] {
        let mut case = Case::new(&[24]);
        let segments = case.index(vec![
            0, 10, 1, 0, 10, 1, 10, 4, 3, 10, 4, 3, 11, 4, 3, 11, 4, 3, 12, 4, 3, 12, 0, 3, 22, 1, 1, 22, 1, 1, 23, 1, 1, 0, 0, 0,
        ]);
        case.parameter("p.weight", &[37, 5]);
        case.check(5, |b, p, x| {
            let qkv = b.linear(x, &p.at("p"), Activation::None).unwrap();
            let spec = Attention { heads: 2, head_width: 6, offsets: [0, 12, 24], segments, dropout, key_dropout: keys, group: None };
            b.attention(qkv, qkv, qkv, spec).unwrap()
        });
    }
}

/// Heads that devices read in pieces of 16 bytes, more keys than fit in a tile, segments of few rows that lie between one another.
#[test]
fn attention_of_wide_heads() {
    for width in [32, 36] {
        let mut case = Case::new(&[150]);
        let interleaved = (0..3).flat_map(|s| [130 + s, 5, 4, 130 + s, 5, 4]);
        let segments = case.index([0, 130, 1, 0, 130, 1].into_iter().chain(interleaved).collect());
        case.parameter("p.weight", &[6 * width, 8]).parameter("n.weight", &[6 * width]).parameter("n.bias", &[6 * width]);
        case.check(8, |b, p, x| {
            let qkv = b.linear(x, &p.at("p"), Activation::None).unwrap();
            let qkv = b.layer_norm(qkv, &p.at("n"), Activation::None).unwrap();
            let spec = Attention {
                heads: 2,
                head_width: width,
                offsets: [0, 2 * width, 4 * width],
                segments,
                dropout: 0.1,
                key_dropout: None,
                group: None,
            };
            b.attention(qkv, qkv, qkv, spec).unwrap()
        });
    }
}

/// Operands that are one matrix with the same columns, and keys that several segments read.
#[test]
fn attention_with_shared_operands() {
    let lists: [Vec<i32>; 3] = [vec![0, 5, 1, 0, 5, 1, 5, 2, 1, 5, 2, 1], vec![0, 4, 1, 2, 5, 1, 4, 3, 1, 0, 6, 1], vec![0, 7, 1, 6, 1, 1]];
    for list in lists {
        for offsets in [[0, 0, 0], [0, 2, 4], [0, 8, 8], [8, 0, 4]] {
            let mut case = Case::new(&[7]);
            let segments = case.index(list.clone());
            case.check(16, |b, _, x| {
                let spec = Attention { heads: 2, head_width: 4, offsets, segments, dropout: 0.1, key_dropout: None, group: None };
                b.attention(x, x, x, spec).unwrap()
            });
        }
    }
}

/// Every segment a group of rows that follow one another: with gradients that fill a matrix, or are added to one, or leave some of it free.
#[test]
fn attention_in_groups() {
    for (size, width, dropout) in [(1, 4, 0.0), (3, 6, 0.2), (12, 32, 0.1), (16, 36, 0.0)] {
        for (columns, again) in [(3, false), (3, true), (4, false)] {
            let mut case = Case::new(&[5]);
            let segments = case.index((0..5).flat_map(|i| [i * size, size, 1, i * size, size, 1]).collect());
            let (size, heads) = (size as usize, 2);
            let all = columns * heads * width;
            case.parameter("p.weight", &[all, 5]).parameter("n.weight", &[all]).parameter("n.bias", &[all]);
            let rows = Rows { times: size, ..N };
            case.check_rows(rows, 5, |b, p, x| {
                let qkv = b.linear(x, &p.at("p"), Activation::None).unwrap();
                let qkv = b.layer_norm(qkv, &p.at("n"), Activation::None).unwrap();
                let offsets = [0, heads * width, 2 * heads * width];
                let spec = Attention { heads, head_width: width, offsets, segments, dropout, key_dropout: None, group: Some(size) };
                let y = b.attention(qkv, qkv, qkv, spec.clone()).unwrap();
                if again { b.attention(qkv, qkv, y, Attention { offsets: [0, heads * width, 0], ..spec }).unwrap() } else { y }
            });
        }
    }
}

#[test]
fn cross_attention() {
    let lists: [(usize, usize, Vec<i32>); 4] = [
        (70, 90, vec![0, 69, 1, 1, 80, 1, 69, 1, 1, 81, 9, 1]),
        (3, 4, vec![0, 1, 1, 0, 0, 1, 1, 2, 1, 0, 4, 1]),
        (0, 4, vec![0, 0, 1, 0, 4, 1]),
        (6, 5, vec![0, 3, 2, 0, 3, 2, 1, 3, 2, 1, 2, 2]),
    ];
    for (queries, keys, list) in lists {
        let mut case = Case::new(&[queries, keys]);
        let segments = case.index(list);
        case.parameter("kv.weight", &[8, 5]).parameter("memory", &[5, 5]);
        let index = case.index((0..keys).map(|i| (i % 5) as i32).collect());
        case.check(8, |b, p, x| {
            let memory = b.parameter(p, "memory").unwrap();
            let memory = b.gather(memory, index, Rows::of(Symbol(1)));
            let kv = b.linear(memory, &p.at("kv"), Activation::None).unwrap();
            let spec = Attention { heads: 1, head_width: 4, offsets: [4, 0, 4], segments, dropout: 0.1, key_dropout: None, group: None };
            b.attention(x, kv, kv, spec).unwrap()
        });
    }
}

#[test]
fn neighborhood() {
    for (length, heads, window, width) in [(5, 1, 5, 3), (7, 2, 3, 32), (1, 1, 1, 2), (6, 2, 5, 34), (8, 3, 4, 6)] {
        for count in [0, 1, 3, 33] {
            let mut case = Case::new(&[count]);
            case.parameter("rpb", &[heads, 2 * window - 1]);
            case.check_rows(N.times(length), 3 * width, |b, p, x| {
                b.neighborhood(x, length, heads, window, p.vector("rpb").unwrap()).unwrap()
            });
        }
    }
}

#[test]
fn unfold_and_mix() {
    for count in [0, 1, 33] {
        for positions in [vec![0, 1, 2, 3, 4], vec![0, 2, 4], vec![4], vec![3, 3]] {
            Case::new(&[count]).check_rows(N.times(5), 3, |b, _, x| b.unfold(x, 5, positions.clone()).unwrap());
        }
        Case::new(&[count]).check_rows(N, 3, |b, _, x| b.unfold(x, 1, vec![0]).unwrap());
        let weights = vec![vec![(0, 0.25), (1, 0.75)], vec![(2, 1.0)], vec![], vec![(1, 0.5), (1, 0.5)]];
        Case::new(&[count]).check_rows(N.times(3), 5, |b, _, x| b.mix(x, 3, weights.clone()).unwrap());
    }
}

/// So many rows, and then so few to each unit, that devices cut the chain in two, forward and backward.
#[test]
fn a_chain_whose_rows_become_few() {
    let mut case = Case::new(&[850]);
    case.many()
        .parameter("first.weight", &[9, 5])
        .parameter("unfolded.weight", &[8, 27])
        .parameter("n.weight", &[8])
        .parameter("n.bias", &[8]);
    (0..4).for_each(|i| _ = case.parameter(&format!("{i}.weight"), &[8, 8]).parameter(&format!("{i}.bias"), &[8]));
    case.check_rows(N.times(12), 5, |b, p, x| {
        let y = b.linear(x, &p.at("first"), Activation::Gelu).unwrap();
        let few = b.unfold(y, 12, vec![2, 7, 11]).unwrap();
        let few = b.linear(few, &p.at("unfolded"), Activation::None).unwrap();
        let few = b.layer_norm(few, &p.at("n"), Activation::None).unwrap();
        (0..4).fold(few, |sum, i| {
            let z = b.linear(few, &p.at(i.to_string()), Activation::Gelu).unwrap();
            b.add(sum, z, RowMap::Same).unwrap()
        })
    });
}

#[test]
fn interleave_and_join_steps() {
    for count in [0, 1, 33] {
        Case::new(&[count]).check(6, |b, _, x| {
            let z = b.add(x, x, RowMap::Same).unwrap();
            b.interleave(&[x, z, x]).unwrap()
        });
        Case::new(&[count]).check(6, |b, _, x| {
            let z = b.add(x, x, RowMap::Same).unwrap();
            b.join_steps(&[z, x, x], 3).unwrap()
        });
    }
}

#[test]
fn smooth_l1() {
    for count in COUNTS {
        for any in [true, false] {
            let mut case = Case::new(&[count]);
            let target = case.input(random(3, (count + 2) * 3 * 6));
            let valid = case.input((0..(count + 2) * 3).map(|i| f64::from(u8::from(any && i % 3 != 1))).collect());
            case.check_loss(N, 12, |b, _, x| {
                let target = b.input("target", target, N, 18);
                let valid = b.input("valid", valid, N, 3);
                b.loss(Op::SmoothL1 { steps: 3, channels: 4, target_channels: 6 }, &[x, target, valid])
            });
        }
    }
}

#[test]
fn unit_norm() {
    for count in COUNTS {
        Case::new(&[count]).check_loss(N, 18, |b, _, x| b.loss(Op::UnitNorm { steps: 3, channels: 6 }, &[x]));
    }
}

#[test]
fn cross_entropy() {
    for (count, segments, target) in [
        (33, vec![0, 20, 20, 1, 21, 12], vec![19, 20, 25]),
        (0, vec![], vec![]),
        (1, vec![0, 1], vec![0]),
        (5, vec![0, 5, 5, 0], vec![2, 0]),
    ] {
        let mut case = Case::new(&[count]);
        let (segments, target) = (case.index(segments), case.index(target));
        case.check_loss(N, 1, |b, _, x| b.loss(Op::CrossEntropy { segments, target }, &[x]));
    }
}

#[test]
fn collision() {
    for (count, size) in [(0, 10), (1, 10), (3, 11), (33, 7)] {
        let mut case = Case::new(&[count]);
        let map = case.input(random(5, count * size * size));
        case.check_loss(N, 5 * 6, |b, _, x| {
            let map = b.input("map", map, N, size * size);
            let op = Op::Collision { steps: 5, channels: 6, size, discs: vec![-0.3, 0.5, 1.0], radius: 0.4, resolution: 0.3 };
            b.loss(op, &[x, map])
        });
    }
}

#[test]
fn triplet() {
    for (count, triplets) in [(6, vec![0, 2, 4, 1, 3, 5]), (3, vec![0, 1, 1, 0, 2, 1]), (3, vec![]), (0, vec![])] {
        let mut case = Case::new(&[count]);
        let triplets = case.index(triplets);
        case.check_loss(N, 31, |b, _, x| b.loss(Op::Triplet { triplets, temperature: 0.3 }, &[x]));
    }
}

#[test]
fn sum() {
    Case::new(&[3]).check_loss(N, 6, |b, _, x| {
        let one = b.loss(Op::UnitNorm { steps: 1, channels: 6 }, &[x]);
        let nothing = b.loss(Op::Sum, &[]);
        b.loss(Op::Sum, &[one, one, nothing])
    });
}

#[test]
fn imitation() {
    for count in COUNTS {
        for (square, decay, any) in
            [([true, false], false, true), ([false, false], true, true), ([true, true], false, false), ([false, true], true, true)]
        {
            let mut case = Case::new(&[count]);
            let target = case.input(random(3, (count + 2) * 3 * 6));
            let valid = case.input((0..(count + 2) * 3).map(|i| f64::from(u8::from(any && i % 4 != 1))).collect());
            let weight = case.input(random(5, count + 2));
            case.check_loss(N, 18, |b, _, x| {
                let target = b.input("target", target, N, 18);
                let valid = b.input("valid", valid, N, 3);
                let weight = b.input("weight", weight, N, 1);
                let op = Op::Imitation { steps: 3, square, factors: [0.3, 0.7], decay };
                b.loss(op, &[x, target, valid, weight])
            });
        }
    }
}

#[test]
fn scale_and_largest() {
    Case::new(&[3]).check_loss(N, 6, |b, _, x| {
        let one = b.loss(Op::UnitNorm { steps: 1, channels: 6 }, &[x]);
        let low = b.loss(Op::Scale { factor: -2.5 }, &[one]);
        let high = b.loss(Op::Scale { factor: 1.5 }, &[one]);
        let most = b.loss(Op::Largest, &[low, high, one]);
        let again = b.loss(Op::Largest, &[one, one]);
        b.loss(Op::Sum, &[most, again])
    });
}

/// Values without gradient; scenarios of no candidate have finite ones of [`Deviation::Beyond`] alone.
#[test]
fn metrics() {
    const STEPS: usize = 37;
    let all = |subjects: &[Subject], deviations: &[Deviation]| -> Vec<Measure> {
        let each = subjects.iter().flat_map(|&subject| deviations.iter().map(move |&deviation| (subject, deviation)));
        each.flat_map(|(subject, deviation)| [false, true].map(|last| Measure { subject, deviation, last })).collect()
    };
    let (beyond, rest) = (Deviation::Beyond(0.9), [Deviation::Distance, Deviation::Turn]);
    let egos = [Subject::Ego(6), Subject::Ego(1)];
    let agents = [Subject::Agent, Subject::Agents];
    for (candidates, of_agents, measures) in [
        (vec![5, 1, 70, 9], vec![3, 0, 40, 1], [all(&egos, &rest), all(&agents, &rest)].concat()),
        (vec![0, 3, 0], vec![0, 2, 0], [all(&egos, &[beyond]), all(&agents, &[beyond, Deviation::Turn])].concat()),
        (vec![2], vec![0], all(&[egos[0], agents[0], agents[1]], &[Deviation::Distance, beyond])),
        (vec![0, 0], vec![0, 0], all(&[egos[0], agents[0], agents[1]], &[beyond])),
        (vec![], vec![], all(&[egos[0], agents[0], agents[1]], &[Deviation::Distance])),
    ] {
        let (rows, count): (usize, usize) = (candidates.iter().sum(), of_agents.iter().sum());
        let mut case = Case::new(&[rows, count, candidates.len()]);
        // Equal ones among them.
        let mut logits: Vec<f64> = random(7, rows).iter().map(|x| (x * 8.0).round()).collect();
        // And those of the last scenario are no numbers.
        logits[rows - candidates.last().map_or(0, |n| *n)..].fill(f64::NAN);
        let logits = case.input(logits);
        let inputs = [(1, count), (2, candidates.len()), (3, count)].map(|(seed, n)| case.input(random(seed, n * STEPS * 6)));
        let valid = case.input((0..count * STEPS).map(|i| f64::from(u8::from(i % 7 != 6 && i / STEPS != 2))).collect());
        let first = |scenario: usize| candidates[..scenario].iter().sum::<usize>();
        let segments = (0..candidates.len()).flat_map(|scenario| [first(scenario), candidates[scenario]]);
        let segments = case.index(segments.map(|n| n as i32).collect());
        let tokens = case.index((0..count as i32).map(|agent| 2 * agent + 1).collect());
        let scenario_of = |(scenario, &n): (usize, &usize)| std::iter::repeat_n(scenario as i32, 2 * n);
        let scenarios = case.index(of_agents.iter().enumerate().flat_map(scenario_of).collect());
        case.check_loss(N, STEPS * 6, |b, _, x| {
            let [agents, scenes] = [1, 2].map(|symbol| Rows::of(Symbol(symbol)));
            let logits = b.input("logits", logits, N, 1);
            let prediction = b.input("prediction", inputs[0], agents, STEPS * 6);
            let ego = b.input("ego", inputs[1], scenes, STEPS * 6);
            let target = b.input("target", inputs[2], agents, STEPS * 6);
            let valid = b.input("valid", valid, agents, STEPS);
            let operands = [x, logits, prediction, ego, target, valid];
            let y = b.metrics(operands, STEPS, [segments, tokens, scenarios], measures.clone()).unwrap();
            b.result("y", y);
            b.loss(Op::UnitNorm { steps: STEPS, channels: 6 }, &[x])
        });
    }
}

#[test]
fn results_that_are_computed_again_for_gradients() {
    for count in COUNTS {
        let mut case = Case::new(&[count]);
        case.parameter("norm.weight", &[9]).parameter("norm.bias", &[9]).statistic("norm.running_mean", 9).statistic("norm.running_var", 9);
        case.parameter("wide.weight", &[14, 9]).parameter("wide.bias", &[14]).parameter("narrow.weight", &[5, 14]);
        case.check(9, |b, p, x| {
            let h = b.batch_norm(x, &p.at("norm"), Activation::Relu).unwrap();
            let h = b.linear(h, &p.at("wide"), Activation::Gelu).unwrap();
            b.linear(h, &p.at("narrow"), Activation::None).unwrap()
        });
    }
}
