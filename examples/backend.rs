//! swath as the backend of another framework: a network of two convolutions and a max pooling trains with nothing but plans
//! on plain slices. [docs/backend.md](https://docs.rs/swath) says which plan serves which operation of a framework.
//!
//! `cargo run --release --example backend`

use swath::pool::MaxPool;
use swath::{
    ConvShape, Epilogue, FiniteRange, Options, PackedWeights, PlanCache, PoolShape, Result, Scratch, WeightsKey,
};

/// A convolution as a framework has it: weights and a bias in plain memory, and what was made of them.
struct Conv {
    weights: Vec<f32>,
    bias: Vec<f32>,
    /// Packed for the passes that were asked for, by what they were packed for: plans of other batches find them here.
    packed: Vec<(WeightsKey, PackedWeights)>,
    extents: [usize; 4],
    padding: usize,
}

/// Gradients at weights and bias.
type Gradients = (Vec<f32>, Vec<f32>);

impl Conv {
    fn new(extents: [usize; 4], padding: usize) -> Self {
        let fan_in = extents[1] * extents[2] * extents[3];
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let bound = (3.0 / fan_in as f32).sqrt();
        let weights = (0..extents[0] * fan_in).map(|_| bound * random()).collect();
        Self { weights, bias: vec![0.0; extents[0]], packed: Vec::new(), extents, padding }
    }

    fn shape(&self, x: [usize; 4]) -> Result<ConvShape> {
        Ok(ConvShape::builder(x, self.extents).padding(self.padding).build()?)
    }

    /// The weights, packed for a key: once, until they change.
    fn packed(
        &mut self,
        key: WeightsKey,
        pack: impl FnOnce(&[f32]) -> Result<PackedWeights>,
    ) -> Result<&PackedWeights> {
        let at = match self.packed.iter().position(|(k, _)| *k == key) {
            Some(at) => at,
            None => {
                self.packed.push((key, pack(&self.weights)?));
                self.packed.len() - 1
            }
        };
        Ok(&self.packed[at].1)
    }

    /// `conv(x) + bias`, with ReLU if asked for; and the extents.
    fn forward(&mut self, x: &[f32], dims: [usize; 4], relu: bool, s: &mut Scratch) -> Result<(Vec<f32>, [usize; 4])> {
        let plan = PlanCache::global().forward(&self.shape(dims)?, &Options::default())?;
        let dims = plan.shape().output();
        let mut y = vec![0.0; dims.iter().product()];
        let bias = self.bias.clone();
        let epilogue = Epilogue::bias(&bias);
        let epilogue = if relu { epilogue.relu() } else { epilogue };
        plan.forward(x, self.packed(plan.weights_key(), |w| plan.pack(w))?, epilogue, &mut y, s)?;
        Ok((y, dims))
    }

    /// Gradients at weights and bias, and at the input.
    fn backward(&mut self, x: &[f32], dims: [usize; 4], dy: &[f32], s: &mut Scratch) -> Result<(Gradients, Vec<f32>)> {
        let (shape, options) = (self.shape(dims)?, Options::default());
        let (mut dw, mut db) = (vec![0.0; self.weights.len()], vec![0.0; self.bias.len()]);
        PlanCache::global().backward_weights(&shape, &options)?.run(x, dy, &mut dw, Some(&mut db), s)?;
        let plan = PlanCache::global().backward_data(&shape, &options)?;
        let mut dx = vec![0.0; x.len()];
        plan.run(dy, self.packed(plan.weights_key(), |w| plan.pack(w))?, &mut dx, s)?;
        Ok(((dw, db), dx))
    }

    fn update(&mut self, (dw, db): &Gradients, rate: f32) {
        self.weights.iter_mut().zip(dw).for_each(|(w, d)| *w -= rate * d);
        self.bias.iter_mut().zip(db).for_each(|(b, d)| *b -= rate * d);
        self.packed.clear();
    }
}

/// Two convolutions with ReLU and 2x2 max pooling between them; the second one sees all that is left.
struct Net {
    first: Conv,
    second: Conv,
    scratch: Scratch,
}

impl Net {
    /// One step on pictures `[n, 1, 8, 8]`; the mean cross-entropy before it, and how many were right.
    fn step(&mut self, x: &[f32], classes: &[usize], rate: f32) -> Result<(f32, usize)> {
        let Self { first, second, scratch: s } = self;
        let dims = [classes.len(), 1, 8, 8];
        let (hidden, hidden_dims) = first.forward(x, dims, true, s)?;
        let pool = MaxPool::new(&PoolShape::builder(hidden_dims, 2).build()?, &Options::default())?;
        let pooled_dims = pool.shape().output();
        let mut pooled = vec![0.0; pooled_dims.iter().product()];
        let mut indices = vec![0; pooled.len()];
        pool.forward(&hidden, &mut pooled, Some(&mut indices))?;
        let (logits, logits_dims) = second.forward(&pooled, pooled_dims, false, s)?;

        let (loss, right, dlogits) = cross_entropy(&logits, logits_dims[1], classes);

        let (second_gradients, dpooled) = second.backward(&pooled, pooled_dims, &dlogits, s)?;
        let mut dhidden = vec![0.0; hidden.len()];
        pool.backward(&indices, &dpooled, &mut dhidden)?;
        dhidden.iter_mut().zip(&hidden).for_each(|(d, &y)| *d = if y > 0.0 { *d } else { 0.0 });
        let (first_gradients, _) = first.backward(x, dims, &dhidden, s)?;
        first.update(&first_gradients, rate);
        second.update(&second_gradients, rate);
        Ok((loss, right))
    }
}

/// Mean cross-entropy, how many are right, and the gradient at the logits `[n, classes]`.
fn cross_entropy(logits: &[f32], n: usize, classes: &[usize]) -> (f32, usize, Vec<f32>) {
    let (mut loss, mut right, mut d) = (0.0, 0, Vec::with_capacity(logits.len()));
    for (row, &class) in logits.chunks_exact(n).zip(classes) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = row.iter().map(|v| (v - most).exp()).sum();
        loss += (sum.ln() + most - row[class]) / classes.len() as f32;
        right += usize::from(row[class] == most);
        let gradient =
            |(k, v): (usize, &f32)| ((v - most).exp() / sum - f32::from(u8::from(k == class))) / classes.len() as f32;
        d.extend(row.iter().enumerate().map(gradient));
    }
    (loss, right, d)
}

/// Pictures of 8x8 with a bar across: lying, standing, or along one of the diagonals; and which.
fn pictures(n: usize, seed: usize) -> (Vec<f32>, Vec<usize>) {
    let (mut x, mut classes) = (vec![0.0; n * 64], Vec::new());
    for (i, picture) in x.chunks_exact_mut(64).enumerate() {
        let (class, at) = ((i + seed) % 4, (i * 5 + seed * 3) % 8);
        for k in 0..8 {
            let (row, column) = [(at, k), (k, at), (k, (k + at) % 8), (k, (15 - k + at) % 8)][class];
            picture[row * 8 + column] = 1.0;
        }
        let noise = |p: usize| ((p * 7919 + i * 104_729 + seed * 1299) % 101) as f32 / 500.0 - 0.1;
        picture.iter_mut().enumerate().for_each(|(p, v)| *v += noise(p));
        classes.push(class);
    }
    (x, classes)
}

fn main() -> Result<()> {
    let mut net =
        Net { first: Conv::new([8, 1, 3, 3], 1), second: Conv::new([4, 8, 4, 4], 0), scratch: Scratch::new() };
    let mut last = (0.0, 0);
    for step in 0..=150 {
        // The last batch is smaller, as at the end of an epoch: its plans are others, and are found again too.
        let n = if step % 5 == 4 { 20 } else { 32 };
        let (x, classes) = pictures(n, step);
        last = net.step(&x, &classes, 0.3)?;
        if step % 25 == 0 {
            println!("step {step:3}: loss {:.4}, {} of {n} right", last.0, last.1);
        }
    }
    assert!(last.0 < 0.1 && last.1 == 32, "it has not learned: loss {}, {} right", last.0, last.1);

    let cache = PlanCache::global();
    println!("\n{} plans in the cache; the first layer's:\n", cache.len());
    let plan = cache.forward(&net.first.shape([32, 1, 8, 8])?, &Options::default())?;
    println!("{}\n", plan.explain());
    let FiniteRange { input, .. } = plan.finite_range();
    println!("finite for inputs of up to {input:.1e}");

    // What does not fit is an error with both numbers, never a panic.
    let weights = plan.pack(&net.first.weights)?;
    let mistake = plan.forward(&[0.0; 7], &weights, Epilogue::none(), &mut [], &mut net.scratch);
    println!("a wrong slice: {}", mistake.unwrap_err());
    Ok(())
}
