//! Starting weights, drawn on the host from a seed: the same on every device.

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::captioner::Captioner;
use super::parameters::{MapParameters, ParameterPath, ParameterRole, map_parameters};

/// Fills a captioner with starting weights: matrices and tables uniform with standard deviation
/// 0.02 (linear maps: Xavier's, Glorot & Bengio 2010), maps that end a residual branch scaled by
/// `1/√(2·layers)` (GPT-2), norms at 1, layer scale at 0.1 (CaiT), biases at 0; convolutions as He et
/// al. 2015.
pub fn initialize(model: Captioner, seed: u64) -> Captioner {
    let config = model.config().clone();
    let mut mapper = Initialize {
        rng: ChaCha8Rng::seed_from_u64(seed),
        encoder_layers: config.encoder.num_layers,
        decoder_layers: config.decoder.num_layers,
    };
    map_parameters(model, &mut mapper)
}

struct Initialize {
    rng: ChaCha8Rng,
    encoder_layers: usize,
    decoder_layers: usize,
}

impl Initialize {
    fn values(&mut self, path: &ParameterPath, dims: &[usize]) -> Vec<f32> {
        let count = dims.iter().product();
        let role = path.role(dims.len());
        let mut deviation = match role {
            ParameterRole::NormScale => return vec![1.0; count],
            ParameterRole::LayerScale => return vec![0.1; count],
            ParameterRole::Bias | ParameterRole::NormShift => return vec![0.0; count],
            // The linear end of a backbone's block.
            ParameterRole::Convolution if path.contains("project") => (1.0 / dims[1] as f32).sqrt(),
            // A convolution, followed by a non-linearity (He et al. 2015).
            ParameterRole::Convolution => (2.0 / dims[1..].iter().product::<usize>() as f32).sqrt(),
            ParameterRole::Matrix => (2.0 / (dims[0] + dims[1]) as f32).sqrt(),
            _ => 0.02,
        };
        // Residual branches add up: two a layer in the encoder, three in the decoder.
        if role == ParameterRole::Matrix && path.contains("output") && path.contains("layers") {
            let branches = match path.contains("encoder") {
                true => 2 * self.encoder_layers,
                false => 3 * self.decoder_layers,
            };
            deviation /= (branches as f32).sqrt();
        }
        // A uniform distribution of that deviation: bounded, and equal on every platform.
        let bound = deviation * 3f32.sqrt();
        (0..count).map(|_| (self.rng.random::<f32>() * 2.0 - 1.0) * bound).collect()
    }
}

impl MapParameters for Initialize {
    fn map<const D: usize>(
        &mut self,
        path: &ParameterPath,
        param: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        let dims: [usize; D] = param.lazy_shape().dims();
        let device = param.lazy_device();
        let tracked = param.is_require_grad();
        let values = self.values(path, &dims);
        param.map(|_| {
            Tensor::from_data(TensorData::new(values, dims), &device).set_require_grad(tracked)
        })
    }
}
