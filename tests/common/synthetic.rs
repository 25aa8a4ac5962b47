//! Features of scenarios of full size: 49 agents of which 30 are there, 160 polygons of 20 points, 4 reference lines of 100 points,
//! 5 static objects.

use training_engine::{
    features::{AgentFeatures, CostMap, Features, MapFeatures, ReferenceLineFeatures, StaticFeatures},
    graph::random,
};

/// Agents that are there, the ego among them.
pub const SEEN: usize = 30;
const STEPS: usize = 101;
const PRESENT: usize = 20;

/// Uniform numbers in [0, 1) from a counter.
pub struct Uniform(pub u32);

impl Uniform {
    pub fn next(&mut self) -> f64 {
        self.0 += 1;
        f64::from(random::philox([self.0, 0, 0, 0], [7, 7])[0]) / 4_294_967_296.0
    }
    pub fn around(&mut self, spread: f64) -> f64 {
        spread * (2.0 * self.next() - 1.0)
    }
}

fn agents(u: &mut Uniform) -> AgentFeatures {
    let mut a = AgentFeatures { count: SEEN, steps: STEPS, ..Default::default() };
    for row in 0..SEEN {
        let (speed, heading) = (12.0 * u.next(), if row == 0 { 0.0 } else { u.around(3.1) });
        let start = if row == 0 { [0.0; 2] } else { [u.around(60.0), u.around(60.0)] };
        let velocity = [speed * heading.cos(), speed * heading.sin()];
        let (width, length) = (1.5 + u.next(), 3.0 + u.next());
        for t in 0..STEPS {
            let time = 0.1 * (t as f64 - PRESENT as f64);
            a.position.extend([start[0] + velocity[0] * time, start[1] + velocity[1] * time]);
            a.heading.push(heading);
            a.velocity.extend(velocity);
            a.shape.extend([width, length]);
            a.valid.push(true);
            if t > PRESENT {
                a.target.extend([velocity[0] * time, velocity[1] * time, 0.0]);
            }
        }
        a.category.push(if row == 0 { 0 } else { 1 + (row % 3) as i8 });
    }
    a
}

fn map(u: &mut Uniform) -> MapFeatures {
    let mut m = MapFeatures { count: 160, ..Default::default() };
    for row in 0..m.count {
        let (x, y, course) = (u.around(100.0), u.around(100.0), u.around(3.1));
        let (c, s) = (course.cos(), course.sin());
        for side in [0.0, 1.8, -1.8] {
            for p in 0..20 {
                m.point_position.extend([x + 2.0 * c * f64::from(p) - side * s, y + 2.0 * s * f64::from(p) + side * c]);
                m.point_vector.extend([2.0 * c, 2.0 * s]);
                m.point_orientation.push(course);
            }
        }
        m.polygon_center.extend([x + 20.0 * c, y + 20.0 * s, course]);
        m.polygon_position.extend([x, y]);
        m.polygon_orientation.push(course);
        m.polygon_type.push((row % 3) as i8);
        m.polygon_on_route.push(row % 4 == 0);
        m.polygon_light.push((row % 4) as i8);
        let limit = u.next() < 0.7;
        m.polygon_has_speed_limit.push(limit);
        m.polygon_speed_limit.push(if limit { 5.0 + 20.0 * u.next() } else { 0.0 });
        m.valid.extend([true; 20]);
    }
    m
}

fn lines(u: &mut Uniform) -> ReferenceLineFeatures {
    let mut l = ReferenceLineFeatures { count: 4, points: 120, ..Default::default() };
    for _ in 0..l.count {
        let (y, course) = (u.around(3.0), u.around(0.3));
        for p in 0..l.points {
            l.position.extend([f64::from(p as u32) * course.cos(), y + f64::from(p as u32) * course.sin()]);
            l.vector.extend([course.cos(), course.sin()]);
            l.orientation.push(course);
            l.valid.push(p < 100);
        }
        for _ in 0..8 {
            l.future_projection.extend([120.0 * u.next(), 3.0 * u.next()]);
        }
    }
    l
}

/// Scenario number `index`.
pub fn features(index: u32) -> Features {
    let u = &mut Uniform(index * 100_000);
    let mut statics = StaticFeatures { count: 5, ..Default::default() };
    for k in 0..5 {
        statics.position.extend([u.around(30.0), u.around(30.0)]);
        statics.heading.push(u.around(3.1));
        statics.shape.extend([0.3 + u.next(), 0.3 + u.next()]);
        statics.category.push(k % 4);
        statics.valid.push(true);
    }
    let values = (0..500 * 500).map(|i| 8.0 - ((i / 500) as f32 * 0.2 - 50.0).abs()).collect();
    let agents = agents(u);
    Features {
        token: format!("scenario-{index}"),
        scenario_type: "cruising".into(),
        current_state: [0.0, 0.0, 0.0, 8.0, u.around(1.0), u.around(0.2), u.around(0.1)],
        agents,
        map: map(u),
        static_objects: statics,
        reference_lines: lines(u),
        cost_map: Some(CostMap { size: 500, values }),
        ..Default::default()
    }
}
