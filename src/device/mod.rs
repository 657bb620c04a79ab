//! Compute devices: which adapters exist, which one is used, and why.
//!
//! A device is asked for by name ([`DeviceRequest`], as in `--device wgpu:0`) and becomes a Burn
//! device with [`resolve`], which says what it took and why. Nothing here is lazy: a device that is
//! not there, or does not open, is a [`DeviceError`] now and not a panic at the first tensor.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use burn::tensor::Device;

mod adapter;
mod request;

use adapter::gpu;
pub use adapter::{Adapter, AdapterKind, GraphicsApi};
pub use request::{DeviceError, DeviceRequest};

use crate::plural::counted;

/// The adapters wgpu finds, in a fixed order: by API, then as the driver lists them. Empty where
/// there is no driver, and in a build without the Cargo feature `wgpu`. Asked once per process.
pub fn adapters() -> Vec<Adapter> {
    static ADAPTERS: OnceLock<Vec<Adapter>> = OnceLock::new();
    ADAPTERS
        .get_or_init(|| {
            let mut adapters = gpu::list();
            let first = auto_order(&adapters).first().map(|adapter| adapter.index);
            for adapter in &mut adapters {
                adapter.auto = Some(adapter.index) == first;
            }
            adapters
        })
        .clone()
}

/// How many CUDA devices this machine has; 0 in a build without the Cargo feature `cuda`.
pub fn num_cuda_devices() -> usize {
    #[cfg(feature = "cuda")]
    {
        Device::enumerate(burn::tensor::DeviceType::Cuda).len()
    }
    #[cfg(not(feature = "cuda"))]
    {
        0
    }
}

/// The threads that flex computes with: `RAYON_NUM_THREADS`, else one per core this process may
/// use.
pub fn num_cpu_threads() -> usize {
    // Asking rayon would start its pool, and a caller may still want to size it.
    let chosen = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok());
    chosen.filter(|threads| *threads > 0).unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
    })
}

/// What lengths are rounded up to a multiple of on `device`: 1 on the CPU, more on a GPU, where a new
/// shape is a new kernel to compile or to tune.
pub fn length_bucket(device: &Device) -> usize {
    if device.clone().inner() == Device::flex() { 1 } else { 8 }
}

/// Threads that read photos ahead of `device`. Decoding shares the cores with a model on the CPU; a GPU
/// waits for them, and has them to itself.
pub fn num_readers(device: &Device) -> usize {
    let threads = num_cpu_threads();
    if device.clone().inner() == Device::flex() { threads.clamp(1, 2) } else { threads.clamp(2, 8) }
}

/// Which of Burn's backends a [`Resolved`] device belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// Flex: this machine's CPU, no kernels to compile.
    Flex,
    /// wgpu, on an adapter of this kind.
    Wgpu(AdapterKind),
    /// CUDA.
    Cuda,
}

/// A device that is open and ready.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What to create models and tensors on.
    pub device: Device,
    /// What it is, for people: `flex (CPU, 2 threads)`.
    pub name: String,
    /// Why this one, for people: `no GPU found`.
    pub reason: String,
    /// Its backend, for code that must know.
    pub kind: BackendKind,
}

/// What `auto` would take on this machine, without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoChoice {
    /// The name to pass as `--device` for the same device: `flex`, `wgpu:0`, `cuda:0`.
    pub request: DeviceRequest,
    /// What it is, for people.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Says what `auto` would take and why, without opening it. [`resolve`] goes on to the next device
/// when that one does not open.
pub fn auto_choice() -> AutoChoice {
    let adapters = adapters();
    if let Some(adapter) = auto_order(&adapters).first() {
        let request = DeviceRequest::Wgpu(Some(adapter.index));
        let reason = "the best GPU found".to_string();
        return AutoChoice { request, name: adapter_name(adapter), reason };
    }
    if num_cuda_devices() > 0 {
        let request = DeviceRequest::Cuda(Some(0));
        let reason = "the first CUDA device, as wgpu found no GPU".to_string();
        return AutoChoice { request, name: request.to_string(), reason };
    }
    AutoChoice {
        request: DeviceRequest::Flex,
        name: flex_name(),
        reason: reason_for_no_gpu(&adapters),
    }
}

/// Every GPU of this machine, each once: those on the API of the best one. Without any, what `auto` takes.
pub fn all_gpus() -> Vec<DeviceRequest> {
    let adapters = adapters();
    let gpus = auto_order(&adapters);
    if let Some(best) = gpus.first() {
        let same_api = gpus.iter().filter(|adapter| adapter.api == best.api);
        return same_api.map(|adapter| DeviceRequest::Wgpu(Some(adapter.index))).collect();
    }
    match num_cuda_devices() {
        0 => vec![DeviceRequest::Auto],
        count => (0..count).map(|index| DeviceRequest::Cuda(Some(index))).collect(),
    }
}

/// Opens the device that `request` names.
///
/// Asking again for the same device gives a handle to the one already open.
///
/// # Errors
/// See [`DeviceError`]. `auto` and `flex` never fail: a GPU that does not open is named in
/// [`Resolved::reason`] and passed over.
pub fn resolve(request: &DeviceRequest) -> Result<Resolved, DeviceError> {
    request.check_compiled()?;
    match *request {
        DeviceRequest::Auto => Ok(resolve_auto()),
        DeviceRequest::Flex => Ok(flex("as asked".to_string())),
        DeviceRequest::Wgpu(index) => resolve_adapter(*request, index, None),
        DeviceRequest::Vulkan(index) => resolve_adapter(*request, index, Some(GraphicsApi::Vulkan)),
        DeviceRequest::Metal(index) => resolve_adapter(*request, index, Some(GraphicsApi::Metal)),
        DeviceRequest::Cuda(index) => resolve_cuda(*request, index),
    }
}

fn resolve_auto() -> Resolved {
    let adapters = adapters();
    let mut refusals = Vec::new();
    for adapter in auto_order(&adapters) {
        let reason = match refusals.as_slice() {
            [] => "the best GPU found".to_string(),
            refusals => format!("the best GPU that opens ({})", refusals.join("; ")),
        };
        match open_adapter(adapter, reason) {
            Ok(resolved) => return resolved,
            Err(DeviceError::Open { source, .. }) => {
                refusals.push(format!("{} did not open: {source}", adapter_name(adapter)));
            }
            Err(error) => refusals.push(error.to_string()),
        }
    }
    if num_cuda_devices() > 0
        && let Ok(mut resolved) = resolve_cuda(DeviceRequest::Cuda(None), None)
    {
        resolved.reason = "the first CUDA device, as wgpu found no GPU".to_string();
        return resolved;
    }
    flex(match refusals.as_slice() {
        [] => reason_for_no_gpu(&adapters),
        refusals => refusals.join("; "),
    })
}

fn resolve_adapter(
    request: DeviceRequest,
    index: Option<usize>,
    api: Option<GraphicsApi>,
) -> Result<Resolved, DeviceError> {
    let adapters = adapters();
    let (adapter, reason) = select(&adapters, request, index, api)?;
    open_adapter(adapter, reason)
}

/// The adapter that `request` means and why that one.
fn select(
    adapters: &[Adapter],
    request: DeviceRequest,
    index: Option<usize>,
    api: Option<GraphicsApi>,
) -> Result<(&Adapter, String), DeviceError> {
    let is_on_api = |adapter: &&Adapter| api.is_none_or(|api| adapter.api == api);
    if let Some(index) = index {
        let adapter = adapters
            .iter()
            .find(|adapter| adapter.index == index)
            .ok_or(DeviceError::NoSuchAdapter { request, found: adapters.len() })?;
        if !is_on_api(&adapter) {
            return Err(DeviceError::WrongApi { request, adapter: adapter.clone() });
        }
        if let Some(why) = adapter.obstacle() {
            return Err(DeviceError::Unusable { adapter: adapter.clone(), why });
        }
        return Ok((adapter, "as asked".to_string()));
    }
    if let Some(gpu) = auto_order(adapters).into_iter().find(is_on_api) {
        return Ok((gpu, "the best GPU found".to_string()));
    }
    adapters
        .iter()
        .filter(is_on_api)
        .find(|adapter| adapter.kind == AdapterKind::Software && adapter.obstacle().is_none())
        .map(|software| (software, "a software adapter, as no GPU was found".to_string()))
        .ok_or(DeviceError::NoAdapter { request })
}

/// The GPUs that `auto` takes, best first.
fn auto_order(adapters: &[Adapter]) -> Vec<&Adapter> {
    let mut gpus: Vec<&Adapter> =
        adapters.iter().filter(|adapter| adapter.is_usable_gpu()).collect();
    gpus.sort_by_key(|adapter| (adapter.kind, adapter.index));
    gpus
}

/// Opens an adapter, or hands out the handle from the first time: Burn refuses to configure the
/// same adapter twice in one process.
fn open_adapter(adapter: &Adapter, reason: String) -> Result<Resolved, DeviceError> {
    static OPENED: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let device = match opened.get(&adapter.index) {
        Some(device) => device.clone(),
        None => {
            let device = gpu::open(adapter)
                .map_err(|source| DeviceError::Open { adapter: adapter.clone(), source })?;
            opened.insert(adapter.index, device.clone());
            device
        }
    };
    let kind = BackendKind::Wgpu(adapter.kind);
    Ok(Resolved { device, name: adapter_name(adapter), reason, kind })
}

fn resolve_cuda(request: DeviceRequest, index: Option<usize>) -> Result<Resolved, DeviceError> {
    let found = num_cuda_devices();
    match index {
        _ if found == 0 => return Err(DeviceError::NoAdapter { request }),
        Some(index) if index >= found => {
            return Err(DeviceError::NoSuchAdapter { request, found });
        }
        _ => {}
    }
    #[cfg(feature = "cuda")]
    {
        let index = index.unwrap_or(0);
        Ok(Resolved {
            device: Device::cuda(index),
            name: format!("cuda:{index} (CUDA)"),
            reason: "as asked".to_string(),
            kind: BackendKind::Cuda,
        })
    }
    #[cfg(not(feature = "cuda"))]
    {
        Err(DeviceError::NotCompiled { request, feature: "cuda" })
    }
}

fn flex(reason: String) -> Resolved {
    Resolved { device: Device::flex(), name: flex_name(), reason, kind: BackendKind::Flex }
}

fn flex_name() -> String {
    format!("flex (CPU, {})", counted(num_cpu_threads(), "thread"))
}

fn adapter_name(adapter: &Adapter) -> String {
    format!("wgpu:{} ({adapter})", adapter.index)
}

fn reason_for_no_gpu(adapters: &[Adapter]) -> String {
    if cfg!(not(any(feature = "wgpu", feature = "cuda"))) {
        return "this build has no GPU backend".to_string();
    }
    match adapters.iter().find(|adapter| adapter.kind == AdapterKind::Software) {
        Some(software) => format!(
            "no GPU found, only {}, a software adapter (use it with `--device wgpu:{}`)",
            software.name, software.index
        ),
        None => "no GPU found".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(index: usize, kind: AdapterKind, api: GraphicsApi) -> Adapter {
        Adapter {
            index,
            name: format!("adapter {index}"),
            kind,
            api,
            driver: String::new(),
            auto: false,
            index_of_kind: 0,
            can_compute: true,
        }
    }

    #[test]
    fn auto_prefers_discrete_over_integrated_over_virtual_and_never_software() {
        let mut adapters = vec![
            adapter(0, AdapterKind::Software, GraphicsApi::Vulkan),
            adapter(1, AdapterKind::VirtualGpu, GraphicsApi::Vulkan),
            adapter(2, AdapterKind::IntegratedGpu, GraphicsApi::Vulkan),
            adapter(3, AdapterKind::DiscreteGpu, GraphicsApi::Vulkan),
            adapter(4, AdapterKind::Other, GraphicsApi::OpenGl),
        ];
        let order = |adapters: &[Adapter]| -> Vec<usize> {
            auto_order(adapters).iter().map(|adapter| adapter.index).collect()
        };
        assert_eq!(order(&adapters), [3, 2, 1]);
        adapters[3].can_compute = false;
        assert_eq!(order(&adapters), [2, 1]);
        assert!(order(&adapters[..1]).is_empty());
    }

    #[test]
    fn wgpu_alone_takes_a_gpu_then_software_then_nothing() {
        let software = adapter(0, AdapterKind::Software, GraphicsApi::Vulkan);
        let gpu = adapter(1, AdapterKind::IntegratedGpu, GraphicsApi::Dx12);
        let request = DeviceRequest::Wgpu(None);

        let both = [software.clone(), gpu];
        assert_eq!(select(&both, request, None, None).unwrap().0.index, 1);
        let (taken, reason) = select(&both, request, None, Some(GraphicsApi::Vulkan)).unwrap();
        assert_eq!(taken.index, 0);
        assert!(reason.contains("software"), "{reason}");
        assert_eq!(select(&[software], request, None, None).unwrap().0.index, 0);
        let error = select(&[], request, None, None).unwrap_err();
        assert!(matches!(error, DeviceError::NoAdapter { .. }));
        assert!(error.hint().unwrap().contains("--device flex"));
    }

    #[test]
    fn a_number_selects_that_adapter_or_says_what_there_is() {
        let mut adapters = vec![
            adapter(0, AdapterKind::DiscreteGpu, GraphicsApi::Vulkan),
            adapter(1, AdapterKind::Software, GraphicsApi::Vulkan),
            adapter(2, AdapterKind::Other, GraphicsApi::OpenGl),
        ];
        let pick = |adapters: &[Adapter], index: usize, api| {
            let request = DeviceRequest::Wgpu(Some(index));
            select(adapters, request, Some(index), api).map(|(adapter, _)| adapter.index)
        };
        assert_eq!(pick(&adapters, 1, None).unwrap(), 1);
        let error = pick(&adapters, 3, None).unwrap_err().to_string();
        assert_eq!(error, "there is no `wgpu:3`: this machine has 3 adapters, numbers 0 to 2");
        let error = pick(&adapters, 0, Some(GraphicsApi::Metal)).unwrap_err();
        assert!(matches!(error, DeviceError::WrongApi { .. }), "{error}");
        assert!(matches!(pick(&adapters, 2, None), Err(DeviceError::Unusable { .. })));
        adapters[1].index_of_kind = 1;
        assert!(matches!(pick(&adapters, 1, None), Err(DeviceError::Unusable { .. })));
    }

    #[test]
    fn adapters_are_numbered_in_order_and_at_most_one_is_taken_by_auto() {
        let adapters = adapters();
        for (position, adapter) in adapters.iter().enumerate() {
            assert_eq!(adapter.index, position);
            assert!(!adapter.auto || adapter.kind.is_gpu());
        }
        assert!(adapters.iter().filter(|adapter| adapter.auto).count() <= 1);
        if adapters.is_empty() {
            let error = resolve(&DeviceRequest::Wgpu(None)).unwrap_err();
            assert!(matches!(
                error,
                DeviceError::NoAdapter { .. } | DeviceError::NotCompiled { .. }
            ));
            assert_eq!(resolve(&DeviceRequest::Auto).unwrap().kind, BackendKind::Flex);
        }
    }

    #[test]
    fn flex_opens_twice_and_computes() {
        for _ in 0..2 {
            let resolved = resolve(&DeviceRequest::Flex).unwrap();
            assert_eq!(resolved.reason, "as asked");
            assert!(resolved.name.starts_with("flex (CPU, "));
            let sum = burn::Tensor::<1>::ones([3], &resolved.device).sum();
            assert_eq!(sum.into_scalar::<f32>(), 3.0);
        }
    }

    #[test]
    fn without_a_gpu_the_reason_names_the_software_adapter() {
        let software = adapter(0, AdapterKind::Software, GraphicsApi::Vulkan);
        if cfg!(feature = "wgpu") {
            assert_eq!(reason_for_no_gpu(&[]), "no GPU found");
            assert!(reason_for_no_gpu(&[software]).contains("`--device wgpu:0`"));
        }
    }
}
