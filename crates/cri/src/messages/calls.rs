//! The calls of both services: a method for each request, and its answer.

use prost::Message;

use super::*;

/// A request that is answered once.
pub trait Call: Message + Default {
    /// Path of the method.
    const METHOD: &'static str;
    /// What it is answered with.
    type Answer: Message + Default;
}

/// A request that is answered by messages, one after another.
pub trait StreamCall: Message + Default {
    /// Path of the method.
    const METHOD: &'static str;
    /// What it is answered with.
    type Part: Message + Default;
}

macro_rules! calls {
    ($name:ident, $answer:ident, $service:literal, $($method:literal $request:ident => $response:ident,)*) => {
        $(impl $name for $request {
            const METHOD: &'static str = concat!("/runtime.v1.", $service, "/", $method);
            type $answer = $response;
        })*
    };
}

calls! { Call, Answer, "RuntimeService",
    "Version" VersionRequest => VersionResponse,
    "RunPodSandbox" RunPodSandboxRequest => RunPodSandboxResponse,
    "StopPodSandbox" StopPodSandboxRequest => StopPodSandboxResponse,
    "RemovePodSandbox" RemovePodSandboxRequest => RemovePodSandboxResponse,
    "PodSandboxStatus" PodSandboxStatusRequest => PodSandboxStatusResponse,
    "ListPodSandbox" ListPodSandboxRequest => ListPodSandboxResponse,
    "CreateContainer" CreateContainerRequest => CreateContainerResponse,
    "StartContainer" StartContainerRequest => StartContainerResponse,
    "StopContainer" StopContainerRequest => StopContainerResponse,
    "RemoveContainer" RemoveContainerRequest => RemoveContainerResponse,
    "ListContainers" ListContainersRequest => ListContainersResponse,
    "ContainerStatus" ContainerStatusRequest => ContainerStatusResponse,
    "UpdateContainerResources" UpdateContainerResourcesRequest => UpdateContainerResourcesResponse,
    "ReopenContainerLog" ReopenContainerLogRequest => ReopenContainerLogResponse,
    "ExecSync" ExecSyncRequest => ExecSyncResponse,
    "Exec" ExecRequest => ExecResponse,
    "Attach" AttachRequest => AttachResponse,
    "PortForward" PortForwardRequest => PortForwardResponse,
    "ContainerStats" ContainerStatsRequest => ContainerStatsResponse,
    "ListContainerStats" ListContainerStatsRequest => ListContainerStatsResponse,
    "PodSandboxStats" PodSandboxStatsRequest => PodSandboxStatsResponse,
    "ListPodSandboxStats" ListPodSandboxStatsRequest => ListPodSandboxStatsResponse,
    "UpdateRuntimeConfig" UpdateRuntimeConfigRequest => UpdateRuntimeConfigResponse,
    "Status" StatusRequest => StatusResponse,
    "CheckpointContainer" CheckpointContainerRequest => CheckpointContainerResponse,
    "RuntimeConfig" RuntimeConfigRequest => RuntimeConfigResponse,
    "UpdatePodSandboxResources" UpdatePodSandboxResourcesRequest => UpdatePodSandboxResourcesResponse,
}

calls! { Call, Answer, "ImageService",
    "ListImages" ListImagesRequest => ListImagesResponse,
    "ImageStatus" ImageStatusRequest => ImageStatusResponse,
    "PullImage" PullImageRequest => PullImageResponse,
    "RemoveImage" RemoveImageRequest => RemoveImageResponse,
    "ImageFsInfo" ImageFsInfoRequest => ImageFsInfoResponse,
}

calls! { StreamCall, Part, "RuntimeService",
    "GetContainerEvents" GetEventsRequest => ContainerEventResponse,
    "StreamPodSandboxes" StreamPodSandboxesRequest => StreamPodSandboxesResponse,
    "StreamContainers" StreamContainersRequest => StreamContainersResponse,
    "StreamContainerStats" StreamContainerStatsRequest => StreamContainerStatsResponse,
    "StreamPodSandboxStats" StreamPodSandboxStatsRequest => StreamPodSandboxStatsResponse,
}

calls! { StreamCall, Part, "ImageService",
    "StreamImages" StreamImagesRequest => StreamImagesResponse,
}
