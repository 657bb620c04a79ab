//! Starting weights, drawn on the host from a seed: the same on every device.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::captioner::Captioner;

/// Fills a captioner with starting weights: matrices and tables uniform with standard deviation
/// 0.02 (linear maps: Xavier's, Glorot & Bengio 2010), maps that end a residual branch scaled by
/// `1/√(2·layers)` (GPT-2), norms at 1, layer scale at 0.1 (CaiT), biases at 0; convolutions as He et
/// al. 2015.
pub fn initialize(model: Captioner, seed: u64) -> Captioner {
    let config = model.config().clone();
    let mut mapper = Initialize {
        rng: ChaCha8Rng::seed_from_u64(seed),
        path: Vec::new(),
        encoder_layers: config.encoder.num_layers,
        decoder_layers: config.decoder.num_layers,
    };
    model.map(&mut mapper)
}

struct Initialize {
    rng: ChaCha8Rng,
    path: Vec<String>,
    encoder_layers: usize,
    decoder_layers: usize,
}

impl Initialize {
    fn values(&mut self, dims: &[usize]) -> Vec<f32> {
        let count = dims.iter().product();
        let name = self.path.last().map_or("", String::as_str);
        let inside = |part: &str| self.path.iter().any(|name| name == part);
        if name == "gamma" {
            return vec![1.0; count];
        }
        // Layer scale.
        if name.ends_with("_scale") {
            return vec![0.1; count];
        }
        if dims.len() == 1 {
            return vec![0.0; count];
        }
        let mut deviation = match name {
            // The linear end of a backbone's block.
            "weight" if inside("project") => (1.0 / dims[1] as f32).sqrt(),
            // A convolution, followed by a non-linearity (He et al. 2015).
            "weight" if dims.len() == 4 => {
                (2.0 / dims[1..].iter().product::<usize>() as f32).sqrt()
            }
            "weight" => (2.0 / (dims[0] + dims[1]) as f32).sqrt(),
            _ => 0.02,
        };
        // Residual branches add up: two a layer in the encoder, three in the decoder.
        if name == "weight" && inside("output") && inside("layers") {
            let branches =
                if inside("encoder") { 2 * self.encoder_layers } else { 3 * self.decoder_layers };
            deviation /= (branches as f32).sqrt();
        }
        // A uniform distribution of that deviation: bounded, and equal on every platform.
        let bound = deviation * 3f32.sqrt();
        (0..count).map(|_| (self.rng.random::<f32>() * 2.0 - 1.0) * bound).collect()
    }
}

impl ModuleMapper for Initialize {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let dims: [usize; D] = param.lazy_shape().dims();
        let device = param.lazy_device();
        let tracked = param.is_require_grad();
        let values = self.values(&dims);
        param.map(|_| {
            Tensor::from_data(TensorData::new(values, dims), &device).set_require_grad(tracked)
        })
    }
}
