//! The adapters that wgpu reaches, in one fixed order.

use std::fmt;

/// What an adapter is, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    DiscreteGpu,
    /// A GPU that shares the CPU's memory.
    IntegratedGpu,
    /// A GPU handed to a virtual machine.
    VirtualGpu,
    /// A program that plays GPU on the CPU (llvmpipe, WARP).
    Software,
    /// Its driver does not say.
    Other,
}

impl AdapterKind {
    /// Whether this is hardware made for the job, which is all that `auto` takes.
    pub fn is_gpu(self) -> bool {
        matches!(self, Self::DiscreteGpu | Self::IntegratedGpu | Self::VirtualGpu)
    }
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::DiscreteGpu => "discrete GPU",
            Self::IntegratedGpu => "integrated GPU",
            Self::VirtualGpu => "virtual GPU",
            Self::Software => "software",
            Self::Other => "other",
        })
    }
}

/// The graphics API an adapter is reached through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GraphicsApi {
    /// Vulkan.
    Vulkan,
    /// Apple's Metal.
    Metal,
    /// DirectX 12.
    Dx12,
    /// OpenGL, asked only where no other API has a GPU.
    OpenGl,
}

impl fmt::Display for GraphicsApi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Vulkan => "Vulkan",
            Self::Metal => "Metal",
            Self::Dx12 => "DirectX 12",
            Self::OpenGl => "OpenGL",
        })
    }
}

/// One adapter that wgpu finds on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// Its number in `wgpu:N`, counted from 0 over all adapters of all APIs.
    pub index: usize,
    /// The driver's name for it.
    pub name: String,
    /// What it is.
    pub kind: AdapterKind,
    /// How it is reached. One GPU may be listed once for each API that reaches it.
    pub api: GraphicsApi,
    /// The driver's name and version, empty when it does not say.
    pub driver: String,
    /// Whether this is the one that `auto` tries first.
    pub auto: bool,
    /// Its number among the adapters of its kind on its API, which is how Burn addresses it.
    pub(super) index_of_kind: usize,
    pub(super) can_compute: bool,
}

impl Adapter {
    /// What keeps Burn from using it.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        if !self.can_compute {
            Some("its driver offers no compute shaders")
        } else if self.kind == AdapterKind::Other {
            Some("its driver does not say what it is, and Burn selects adapters by that")
        } else if self.kind == AdapterKind::Software && self.index_of_kind > 0 {
            Some("Burn reaches only the first software adapter of an API")
        } else {
            None
        }
    }

    pub(super) fn is_usable_gpu(&self) -> bool {
        self.kind.is_gpu() && self.obstacle().is_none()
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, {}, {}", self.name, self.kind, self.api)
    }
}

/// What asks wgpu, kept apart so that everything above is the same in a build without it.
#[cfg(feature = "wgpu")]
pub(super) mod gpu {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use burn::tensor::wgpu::{WgpuBackend, wgpu};
    use burn::tensor::{Device, DeviceKind};

    use super::{Adapter, AdapterKind, GraphicsApi};

    /// Every adapter of every API. OpenGL comes last and only where nothing else has a GPU, which
    /// is also when Burn would fall back to it; elsewhere it would list each GPU a second time.
    pub(in crate::device) fn list() -> Vec<Adapter> {
        let mut adapters: Vec<Adapter> = Vec::new();
        let apis =
            [GraphicsApi::Vulkan, GraphicsApi::Metal, GraphicsApi::Dx12, GraphicsApi::OpenGl];
        for api in apis {
            let has_gpu = adapters.iter().any(Adapter::is_usable_gpu);
            // On macOS Vulkan is MoltenVK, a second way to what Metal lists.
            let is_skipped = (api == GraphicsApi::OpenGl && has_gpu)
                || (api != GraphicsApi::Metal && cfg!(target_os = "macos"));
            if !is_skipped {
                list_api(api, &mut adapters);
            }
        }
        adapters
    }

    fn list_api(api: GraphicsApi, adapters: &mut Vec<Adapter>) {
        let backends = wgpu::Backends::from(match api {
            GraphicsApi::Vulkan => wgpu::Backend::Vulkan,
            GraphicsApi::Metal => wgpu::Backend::Metal,
            GraphicsApi::Dx12 => wgpu::Backend::Dx12,
            GraphicsApi::OpenGl => wgpu::Backend::Gl,
        });
        if !wgpu::Instance::enabled_backend_features().intersects(backends) {
            return;
        }
        // One instance limited to one API, as Burn's runtime makes it, lists in the same order.
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        for found in ready(instance.enumerate_adapters(backends)).unwrap_or_default() {
            let info = found.get_info();
            let kind = match info.device_type {
                wgpu::DeviceType::DiscreteGpu => AdapterKind::DiscreteGpu,
                wgpu::DeviceType::IntegratedGpu => AdapterKind::IntegratedGpu,
                wgpu::DeviceType::VirtualGpu => AdapterKind::VirtualGpu,
                wgpu::DeviceType::Cpu => AdapterKind::Software,
                wgpu::DeviceType::Other => AdapterKind::Other,
            };
            let is_peer = |other: &&Adapter| other.api == api && other.kind == kind;
            let flags = found.get_downlevel_capabilities().flags;
            let driver = format!("{} {}", info.driver.trim(), info.driver_info.trim());
            adapters.push(Adapter {
                index: adapters.len(),
                name: info.name.trim().to_string(),
                kind,
                api,
                driver: driver.trim().to_string(),
                auto: false,
                index_of_kind: adapters.iter().filter(is_peer).count(),
                can_compute: flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
                    && found.limits().max_storage_buffers_per_shader_stage >= 2,
            });
        }
    }

    /// Enumeration is asynchronous for the browser's sake; a native one is ready at once.
    fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    pub(in crate::device) fn open(
        adapter: &Adapter,
    ) -> Result<Device, Box<dyn std::error::Error + Send + Sync>> {
        let kind = match adapter.kind {
            AdapterKind::DiscreteGpu => DeviceKind::DiscreteGpu(adapter.index_of_kind),
            AdapterKind::IntegratedGpu => DeviceKind::IntegratedGpu(adapter.index_of_kind),
            AdapterKind::VirtualGpu => DeviceKind::VirtualGpu(adapter.index_of_kind),
            AdapterKind::Software => DeviceKind::Cpu,
            AdapterKind::Other => return Err("Burn has no name for this kind of adapter".into()),
        };
        let api = match adapter.api {
            GraphicsApi::Vulkan => WgpuBackend::Vulkan,
            GraphicsApi::Dx12 => WgpuBackend::Dx12,
            GraphicsApi::OpenGl => WgpuBackend::Gl,
            // Pinned to Metal, Burn insists on its MSL compiler; left to choose on a machine that
            // has Metal alone, it may fall back to WGSL.
            GraphicsApi::Metal => WgpuBackend::Auto,
        };
        let (device, setup) =
            Device::wgpu_options().device_kind(kind).graphics_api(api).init_with_setup()?;
        let opened = setup.adapter.get_info().name;
        if opened.trim() != adapter.name {
            let text = format!("the driver opened {opened} instead: its list changed meanwhile");
            return Err(text.into());
        }
        Ok(device)
    }
}

#[cfg(not(feature = "wgpu"))]
pub(super) mod gpu {
    use burn::tensor::Device;

    use super::Adapter;

    pub(in crate::device) fn list() -> Vec<Adapter> {
        Vec::new()
    }

    pub(in crate::device) fn open(
        _: &Adapter,
    ) -> Result<Device, Box<dyn std::error::Error + Send + Sync>> {
        Err("this build has no wgpu".into())
    }
}
