//! Messages of `runtime.v1` and `runtime.v1.ImageService`, with their names and numbers (kubernetes/cri-api, `api.proto`).
