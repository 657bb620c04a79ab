//! MobileNetV2 (Sandler et al. 2018, <https://arxiv.org/abs/1801.04381>): a convolutional network
//! whose grid of features, a 32nd of the image's side, is what a hybrid encoder embeds as patches.
//!
//! Batch norm is in its inference form, folded into the convolutions when weights are imported
//! (`checkpoint::encoder`): a layer is a convolution, a bias and ReLU6. That computes what frozen running
//! statistics compute, and it is also how the network is fine-tuned here: with the small batches of a
//! captioner, statistics of the batch would be worse than those of ImageNet.
//!
//! | name     | meaning                                                       |
//! |----------|---------------------------------------------------------------|
//! | `input`  | channels that a block reads                                   |
//! | `hidden` | channels between its expansion and its projection             |
//! | `output` | channels that it leaves                                       |
//! | `rows`, `cols` | the grid: image height and width over the stride so far |

use std::iter::{once, once_with};
use std::sync::Arc;

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Device, Tensor, s};

use super::cpu;
use super::cpu::{Block, Layer, Mix};

/// Pixels of the image's side that become one of the grid's.
pub(super) const STRIDE: usize = 32;

/// `(expansion, channels, blocks, stride of the first)`: table 2 of the paper.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// Channels of every layer of a MobileNetV2 of some width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MobileNetV2Shape {
    /// Channels after the first convolution.
    pub stem: usize,
    /// The blocks, first to last.
    pub blocks: Vec<BlockShape>,
    /// Channels of the grid: 1280, or more for a width above 1.
    pub channels: usize,
}

/// One inverted residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockShape {
    /// Channels in.
    pub input: usize,
    /// Channels of the depthwise convolution; as `input` where nothing is expanded.
    pub hidden: usize,
    /// Channels out.
    pub output: usize,
    /// Stride of the depthwise convolution, 1 or 2.
    pub stride: usize,
}

impl MobileNetV2Shape {
    /// The network whose channels are `width` times those of the paper, as torchvision rounds them.
    pub fn new(width: f64) -> Self {
        let stem = divisible_by_8(32.0 * width);
        let mut blocks = Vec::new();
        let mut input = stem;
        for (expansion, channels, repeats, first) in STAGES {
            let output = divisible_by_8(channels as f64 * width);
            for index in 0..repeats {
                let stride = if index == 0 { first } else { 1 };
                blocks.push(BlockShape { input, hidden: input * expansion, output, stride });
                input = output;
            }
        }
        Self { stem, blocks, channels: divisible_by_8(1280.0 * width.max(1.0)) }
    }

    /// Channels after the first convolution and `blocks` blocks, and pixels of the image's side that
    /// are one of the grid's there.
    pub(super) fn after(&self, blocks: usize) -> (usize, usize) {
        let before = &self.blocks[..blocks.min(self.blocks.len())];
        let channels = before.last().map_or(self.stem, |block| block.output);
        (channels, before.iter().fold(2, |stride, block| stride * block.stride))
    }

    /// Values that a backward pass through all but the first `blocks` blocks keeps of one image: what
    /// each convolution reads, and what ReLU6 reads.
    pub fn values_kept(&self, height: usize, width: usize, blocks: usize) -> usize {
        let (_, stride) = self.after(blocks);
        let (mut rows, mut cols) = (height.div_ceil(stride), width.div_ceil(stride));
        let mut sum = 0;
        for block in self.blocks.iter().skip(blocks) {
            let before = rows * cols;
            (rows, cols) = (rows.div_ceil(block.stride), cols.div_ceil(block.stride));
            sum += before * block.input + 2 * block.hidden * rows * cols;
            if block.hidden != block.input {
                sum += 2 * block.hidden * before;
            }
        }
        let last = self.blocks.last().map_or(self.stem, |block| block.output);
        sum + rows * cols * (last + 2 * self.channels)
    }

    /// Multiplications of one image of `height × width` pixels.
    pub fn multiplications(&self, height: usize, width: usize) -> f64 {
        let (mut rows, mut cols) = (height.div_ceil(2), width.div_ceil(2));
        let mut sum = rows * cols * 27 * self.stem;
        for block in &self.blocks {
            if block.hidden != block.input {
                sum += rows * cols * block.input * block.hidden;
            }
            (rows, cols) = (rows.div_ceil(block.stride), cols.div_ceil(block.stride));
            sum += rows * cols * block.hidden * (9 + block.output);
        }
        let last = self.blocks.last().map_or(self.stem, |block| block.output);
        (sum + rows * cols * last * self.channels) as f64
    }
}

/// The multiple of 8 nearest to `channels`, at least 8 and at least nine tenths of it.
fn divisible_by_8(channels: f64) -> usize {
    let rounded = ((channels + 4.0) as usize / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * channels { rounded + 8 } else { rounded }
}

/// The network up to its last grid of features; without pooling and classes.
#[derive(Module, Debug)]
pub struct MobileNetV2 {
    stem: Conv2d,
    blocks: Vec<InvertedResidual>,
    head: Conv2d,
    #[module(skip)]
    kept: [cpu::KeptLayer; 2],
}

impl MobileNetV2 {
    pub(super) fn new(shape: &MobileNetV2Shape, device: &Device) -> Self {
        let last = shape.blocks.last().map_or(shape.stem, |block| block.output);
        Self {
            stem: three_by_three(3, shape.stem, 2, 1, device),
            blocks: shape.blocks.iter().map(|block| InvertedResidual::new(block, device)).collect(),
            head: pointwise(last, shape.channels, device),
            kept: Default::default(),
        }
    }

    /// Pixels of the image's side that are one of the grid's after the first `blocks` blocks.
    pub(super) fn stride_after(&self, blocks: usize) -> usize {
        let strides = self.blocks.iter().take(blocks).map(|block| block.depthwise.stride[0]);
        self.stem.stride[0] * strides.product::<usize>()
    }

    /// The grid of features.
    ///
    /// # Shapes
    /// `pixels`: `[batch, 3, height, width]`; result: `[batch, channels, height/32, width/32]`,
    /// from 0 to 6.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<4> {
        self.after(self.until(pixels, self.blocks.len()), self.blocks.len())
    }

    /// The first convolution and the first `blocks` blocks.
    ///
    /// # Shapes
    /// `pixels`: `[batch, 3, height, width]`; result: `[batch, output, rows, cols]` of the last of
    /// these blocks.
    pub(super) fn until(&self, pixels: Tensor<4>, blocks: usize) -> Tensor<4> {
        let blocks = self.blocks.iter().take(blocks);
        let stem = once_with(|| self.end(0, &self.stem, Layer::Stem));
        let layers = stem.chain(blocks.clone().map(|block| block.layer()));
        cpu::convolved(layers, &pixels).unwrap_or_else(|| {
            blocks.fold(relu6(self.stem.forward(pixels)), |x, block| block.forward(x))
        })
    }

    /// The rest of [`Self::forward`], after [`Self::until`] with as many `blocks`.
    pub(super) fn after(&self, x: Tensor<4>, blocks: usize) -> Tensor<4> {
        let blocks = self.blocks.iter().skip(blocks);
        let head = once_with(|| self.end(1, &self.head, Layer::Head));
        let layers = blocks.clone().map(|block| block.layer()).chain(head);
        cpu::convolved(layers, &x)
            .unwrap_or_else(|| relu6(mix(&self.head, blocks.fold(x, |x, block| block.forward(x)))))
    }

    /// The first or the last convolution for the CPU without gradients.
    fn end(&self, kept: usize, layer: &Conv2d, of: impl Fn(Mix) -> Layer) -> Option<Arc<Layer>> {
        self.kept[kept].layer(once(layer), || cpu::mix(layer).map(of))
    }
}

/// Expands, filters each channel by itself, projects; adds its input where shapes agree.
#[derive(Module, Debug)]
pub struct InvertedResidual {
    expand: Option<Conv2d>,
    depthwise: Conv2d,
    project: Conv2d,
    residual: bool,
    #[module(skip)]
    kept: cpu::KeptLayer,
}

impl InvertedResidual {
    fn new(shape: &BlockShape, device: &Device) -> Self {
        let BlockShape { input, hidden, output, stride } = *shape;
        Self {
            expand: (hidden != input).then(|| pointwise(input, hidden, device)),
            depthwise: three_by_three(hidden, hidden, stride, hidden, device),
            project: pointwise(hidden, output, device),
            residual: stride == 1 && input == output,
            kept: Default::default(),
        }
    }

    /// Itself for the CPU without gradients, if its weights are in f32.
    fn layer(&self) -> Option<Arc<Layer>> {
        let convolutions = self.expand.iter().chain([&self.depthwise, &self.project]);
        self.kept.layer(convolutions, || {
            let expand = match &self.expand {
                Some(expand) => Some(cpu::mix(expand)?),
                None => None,
            };
            Some(Layer::Block(Block {
                expand,
                filter: cpu::filter(&self.depthwise)?,
                project: cpu::mix(&self.project)?,
                residual: self.residual,
            }))
        })
    }

    /// # Shapes
    /// `[batch, input, rows, cols]` to `[batch, output, rows/stride, cols/stride]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let skip = self.residual.then(|| x.clone());
        let hidden = match &self.expand {
            Some(expand) => relu6(mix(expand, x)),
            None => x,
        };
        let hidden = relu6(filter(&self.depthwise, hidden));
        let branch = mix(&self.project, hidden);
        match skip {
            Some(skip) => skip + branch,
            None => branch,
        }
    }
}

fn three_by_three(
    input: usize,
    output: usize,
    stride: usize,
    groups: usize,
    device: &Device,
) -> Conv2d {
    Conv2dConfig::new([input, output], [3, 3])
        .with_stride([stride; 2])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .with_groups(groups)
        .init(device)
}

fn pointwise(input: usize, output: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([input, output], [1, 1]).init(device)
}

fn relu6(x: Tensor<4>) -> Tensor<4> {
    x.clamp(0.0, 6.0)
}

/// A convolution of 1×1. With autodiff it is a matrix product: Burn's gradient of such a convolution
/// takes six times as long on the CPU.
fn mix(layer: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    if !x.device().is_autodiff() {
        return layer.forward(x);
    }
    let [batch, input, rows, cols] = x.dims();
    let [output, _, _, _] = layer.weight.dims();
    let weight = layer.weight.val().reshape([1, output, input]);
    let mixed = weight.matmul(x.reshape([batch, input, rows * cols]));
    biased(layer, mixed.reshape([batch, output, rows, cols]))
}

/// A depthwise convolution of 3×3.
fn filter(layer: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    let device = x.device();
    // Burn computes the gradient of such a convolution channel by channel, which a GPU cannot bear.
    if device.is_autodiff() && !cpu::is_cpu(&device) {
        return shifted_sum(layer, x);
    }
    layer.forward(x)
}

/// A depthwise convolution of 3×3 as a sum of nine shifted products.
fn shifted_sum(layer: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    let [_, channels, height, width] = x.dims();
    let [stride, _] = layer.stride;
    let (rows, cols) = (height.div_ceil(stride), width.div_ceil(stride));
    let padded = x.pad([(1, 1), (1, 1)], 0.0);
    let weight = layer.weight.val();
    let shifted = |row: usize, col: usize| {
        let part = padded.clone().slice(s![
            ..,
            ..,
            row..row + (rows - 1) * stride + 1;stride as isize,
            col..col + (cols - 1) * stride + 1;stride as isize
        ]);
        let tap = weight.clone().slice(s![.., .., row..row + 1, col..col + 1]);
        part * tap.reshape([1, channels, 1, 1])
    };
    let sum = (1..9).fold(shifted(0, 0), |sum, tap| sum + shifted(tap / 3, tap % 3));
    biased(layer, sum)
}

fn biased(layer: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    match &layer.bias {
        Some(bias) => {
            let [channels] = bias.dims();
            x + bias.val().reshape([1, channels, 1, 1])
        }
        None => x,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Captioner, CaptionerConfig, EncoderStage, PatchSource, initialize};
    use burn::tensor::{DType, Distribution};

    #[test]
    fn channels_and_multiplications_are_those_of_torchvision() {
        let shape = MobileNetV2Shape::new(1.0);
        assert_eq!((shape.stem, shape.blocks.len(), shape.channels), (32, 17, 1280));
        let last = BlockShape { input: 160, hidden: 960, output: 320, stride: 1 };
        assert_eq!(shape.blocks.last(), Some(&last));
        // Counted over torchvision's layers.
        assert_eq!(shape.multiplications(224, 224), 299_494_272.0);
        // 0.25 × 24 = 6 becomes 8, and 0.25 × 1280 stays 1280.
        let quarter = MobileNetV2Shape::new(0.25);
        assert_eq!((quarter.stem, quarter.blocks[1].output, quarter.channels), (8, 8, 1280));
        // 11.2 is nearest to 8, but that is less than nine tenths of it.
        assert_eq!(divisible_by_8(11.2), 16);
    }

    #[test]
    fn a_backward_pass_keeps_what_convolutions_and_relu6_read() {
        let shape = MobileNetV2Shape::new(1.0);
        // 7 × 7 of the last block's input, 320 and 1280 channels; then the block itself.
        assert_eq!(shape.values_kept(224, 224, 17), 49 * (320 + 2 * 1280));
        let last = 49 * (160 + 4 * 960);
        assert_eq!(shape.values_kept(224, 224, 16), 49 * (320 + 2 * 1280) + last);
        // Block 14 of 17 halves the grid.
        let halving = 14 * 14 * (96 + 2 * 576) + 2 * 576 * 49;
        let between = shape.values_kept(224, 224, 13) - shape.values_kept(224, 224, 14);
        assert_eq!(between, halving);
    }

    #[test]
    fn a_sum_of_shifted_products_is_the_depthwise_convolution() {
        let device = Device::flex();
        for stride in [1, 2] {
            for (rows, cols) in [(6, 8), (7, 5), (1, 1)] {
                let layer = three_by_three(5, 5, stride, 5, &device);
                let random = Distribution::Uniform(-1.0, 1.0);
                let x = Tensor::<4>::random([2, 5, rows, cols], random, &device);
                let (a, b) = (layer.forward(x.clone()), shifted_sum(&layer, x));
                assert_eq!(a.dims(), b.dims());
                assert!((a - b).abs().max().into_scalar::<f32>() < 1e-5);
            }
        }
    }

    #[test]
    fn features_are_the_same_with_and_without_gradients() {
        let device = Device::flex();
        let net = MobileNetV2::new(&MobileNetV2Shape::new(0.25), &device.autodiff());
        for (batch, height, width) in [(2, 64, 32), (1, 33, 70), (5, 1, 1)] {
            let x = random([batch, 3, height, width]);
            let quiet = net.valid().forward(x.clone());
            let tracked = net.clone().forward(x.autodiff()).inner();
            assert_eq!(quiet.dims(), [batch, 1280, height.div_ceil(32), width.div_ceil(32)]);
            assert!((quiet - tracked).abs().max().into_scalar::<f32>() < 1e-5);
        }
    }

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Uniform(-2.0, 2.0), &Device::flex())
    }

    /// A block with a bias, without which errors at edges may be none.
    fn block(input: usize, hidden: usize, output: usize, stride: usize) -> InvertedResidual {
        let shape = BlockShape { input, hidden, output, stride };
        let mut block = InvertedResidual::new(&shape, &Device::flex());
        for layer in [block.expand.as_mut(), Some(&mut block.depthwise), Some(&mut block.project)] {
            let Some(layer) = layer else { continue };
            layer.bias = layer.bias.take().map(|bias| bias.map(|bias| random(bias.dims())));
        }
        block
    }

    fn on_cpu(block: &InvertedResidual, x: &Tensor<4>) -> Tensor<4> {
        cpu::convolved(once_with(|| block.layer()), x).expect("served")
    }

    #[test]
    fn blocks_on_the_cpu_are_those_of_burn() {
        let channels = [(8, 8, 8), (3, 5, 2), (16, 96, 24), (24, 144, 24), (40, 33, 40)];
        // More rows than are computed at once, one pixel, one column, one row.
        for (rows, cols) in [(40, 33), (9, 9), (1, 1), (7, 1), (1, 6), (2, 2), (3, 200)] {
            for (input, hidden, output) in channels {
                for (batch, stride) in [(1, 1), (1, 2), (5, 1), (5, 2)] {
                    let block = block(input, hidden, output, stride);
                    let x = random([batch, input, rows, cols]);
                    let (ours, theirs) = (on_cpu(&block, &x), block.forward(x));
                    assert_eq!(ours.dims(), theirs.dims());
                    let apart = (ours - theirs).abs().max().into_scalar::<f32>();
                    let what = format!("{input} {hidden} {output} / {stride}, {rows} × {cols}");
                    assert!(apart < 2e-5, "{what}: off by {apart}");
                }
            }
        }
    }

    #[test]
    fn weights_that_changed_are_used() {
        let x = random([1, 8, 3, 3]);
        let mut block = block(8, 16, 8, 1);
        let mut before = on_cpu(&block, &x);
        for change in 0..3 {
            let layer = [block.expand.as_mut().unwrap(), &mut block.depthwise, &mut block.project]
                .into_iter()
                .nth(change)
                .unwrap();
            // In place, if nobody else held them.
            layer.weight = layer.weight.clone().map(|weight| weight * 1.5);
            let after = on_cpu(&block, &x);
            let apart = |x: Tensor<4>| x.abs().max().into_scalar::<f32>();
            assert!(apart(after.clone() - block.forward(x.clone())) < 2e-5);
            assert!(apart(after.clone() - before) > 1e-3);
            assert!(Arc::ptr_eq(&block.layer().unwrap(), &block.clone().layer().unwrap()));
            before = after;
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let block = block(24, 50, 24, 1);
        for batch in [1, 2, 7] {
            let x = random([batch, 24, 19, 21]);
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| on_cpu(&block, &x).into_data())
            };
            assert_eq!(on(1), on(3));
            assert_eq!(on(1), on(32));
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so_just_where_burn_leaves_it() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for stride in [1, 2] {
                let block = block(8, 20, 8, stride);
                let odd = Tensor::full([1, 8, 1, 1], value, &Device::flex());
                let x = random([1, 8, 9, 9]).slice_assign(s![.., .., 4..5, 6..7], odd);
                let (ours, theirs) = (on_cpu(&block, &x), block.forward(x));
                let values = |x: Tensor<4>| x.into_data().try_to_vec::<f32>().unwrap();
                let ours = values(ours);
                for (&ours, theirs) in ours.iter().zip(values(theirs)) {
                    let same = ours == theirs || (ours.is_nan() && theirs.is_nan());
                    assert!(same || (ours - theirs).abs() < 1e-5, "{value}: {ours}, not {theirs}");
                }
                assert!(ours.iter().any(|x| x.is_finite()) && ours.iter().any(|x| x.is_nan()));
            }
        }
    }

    #[test]
    fn halves_and_gradients_are_left_to_burn() {
        let block = block(8, 16, 8, 1);
        let x = random([1, 8, 4, 4]);
        assert!(cpu::convolved(once_with(|| block.layer()), &x.clone().autodiff()).is_none());
        let half = x.clone().cast(DType::F16);
        assert!(cpu::convolved(once_with(|| block.layer()), &half).is_none());
        let mut narrow = block.clone();
        narrow.project.weight = narrow.project.weight.map(|weight| weight.cast(DType::F16));
        assert!(cpu::convolved(once_with(|| narrow.layer()), &x).is_none());
    }

    #[test]
    fn fresh_weights_neither_fade_nor_saturate() {
        let device = Device::flex();
        let mut config = CaptionerConfig::default();
        config.encoder.patches = PatchSource::MobileNetV2 { width: 1.0 };
        config.encoder.patch_size = 32;
        (config.encoder.image_height, config.encoder.image_width) = (64, 64);
        let model = initialize(Captioner::new(&config, &device).unwrap(), 3);
        let random = Distribution::Normal(0.0, 1.0);
        let features = model
            .encode_until(Tensor::random([2, 3, 64, 64], random, &device), EncoderStage::Patches);
        assert_eq!(features.dims(), [2, 4, 1280]);
        let mean = features.clone().mean().into_scalar::<f32>();
        let most = features.greater_equal_elem(6.0).float().mean().into_scalar::<f32>();
        assert!((0.05..3.0).contains(&mean) && most < 0.5, "mean {mean}, {most} of them at 6");
    }
}
