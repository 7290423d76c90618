//! A registry of a few blobs on a loopback port, with faults to order.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What goes wrong with a request whose path ends so.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The data differs from its digest.
    Wrong,
    /// The connection ends in the middle of the body.
    HangUp,
    /// Basic credentials are asked for.
    Password,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, (String, Vec<u8>)>,
    tags: HashMap<String, String>,
    faults: Vec<(String, Fault)>,
    requests: Vec<String>,
}

/// A running registry; it ends with the process.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

pub(crate) fn sha256(data: &[u8]) -> String {
    let hex: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Registry {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Self { address: listener.local_addr().unwrap().to_string(), state: Arc::default() };
        let serving = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        registry
    }

    pub(crate) fn put(&self, media_type: &str, data: Vec<u8>) -> String {
        let digest = sha256(&data);
        self.state.lock().unwrap().blobs.insert(digest.clone(), (media_type.to_owned(), data));
        digest
    }

    /// It does not have a blob any more.
    pub(crate) fn forget(&self, digest: &str) {
        self.state.lock().unwrap().blobs.remove(digest);
    }

    pub(crate) fn tag(&self, name: &str, digest: &str) {
        self.state.lock().unwrap().tags.insert(name.to_owned(), digest.to_owned());
    }

    pub(crate) fn fault(&self, path_end: &str, fault: Fault) {
        self.state.lock().unwrap().faults.push((path_end.to_owned(), fault));
    }

    pub(crate) fn heal(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// How many requests had this in their path.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|path| path.contains(part)).count()
    }

    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// An image of these layers behind an index; gives the digests of the layers.
    pub(crate) fn image(&self, name: &str, tag: &str, layers: &[Layer], config: Value) -> Vec<String> {
        let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(&layer.tar)).collect();
        let document =
            json!({"architecture": "amd64", "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let document = document.to_string().into_bytes();
        let size = document.len();
        let config = self.put("application/vnd.oci.image.config.v1+json", document);
        let media = "application/vnd.oci.image.layer.v1.tar+gzip";
        let digests: Vec<String> = layers.iter().map(|layer| self.put(media, layer.compressed.clone())).collect();
        let entries: Vec<Value> = digests
            .iter()
            .zip(layers)
            .map(|(digest, layer)| json!({"mediaType": media, "digest": digest, "size": layer.compressed.len()}))
            .collect();
        let media = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": media,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size}, "layers": entries});
        let manifest = manifest.to_string().into_bytes();
        let size = manifest.len();
        let manifest = self.put(media, manifest);
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            {"mediaType": media, "digest": sha256(b"other"), "size": 5, "platform": {"os": "linux", "architecture": "s390x"}},
            {"mediaType": media, "digest": manifest, "size": size, "platform": {"os": "linux", "architecture": goarch()}},
        ]});
        let media = "application/vnd.oci.image.index.v1+json";
        let index = self.put(media, index.to_string().into_bytes());
        self.tag(&format!("{name}:{tag}"), &index);
        let outer =
            json!({"schemaVersion": 2, "mediaType": media, "manifests": [{"mediaType": media, "digest": index, "size": 1}]});
        let outer = self.put(media, outer.to_string().into_bytes());
        self.tag(&format!("{name}:{tag}-nested"), &outer);
        let empty = self.put(media, json!({"schemaVersion": 2, "mediaType": media, "manifests": []}).to_string().into_bytes());
        self.tag(&format!("{name}:{tag}-empty"), &empty);
        digests
    }

    /// The image as an OCI layout in a tar file.
    pub(crate) fn layout(&self, name: &str, file: &Path) {
        let state = self.state.lock().unwrap();
        let digest = &state.tags[name];
        let mut builder = tar::Builder::new(std::fs::File::create(file).unwrap());
        let mut add = |path: &str, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, data).unwrap();
        };
        for (digest, (_, data)) in &state.blobs {
            add(&format!("blobs/{}", digest.replace(':', "/")), data);
        }
        let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": digest, "size": state.blobs[digest].1.len(),
            "annotations": {"org.opencontainers.image.ref.name": format!("imported/{name}")}}]});
        add("index.json", index.to_string().as_bytes());
        add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        builder.finish().unwrap();
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let is_head = line.starts_with("HEAD ");
            let path = line.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap().to_owned();
            let (mut authorized, mut header) = (false, String::new());
            while reader.read_line(&mut header).unwrap_or(0) > 2 {
                authorized |= header.to_lowercase().starts_with("authorization: basic");
                header.clear();
            }
            if !self.answer(&mut stream, &path, authorized, is_head) {
                // What was sent must arrive before the end.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read(&mut [0]);
                return;
            }
        }
    }

    fn answer(&self, stream: &mut TcpStream, path: &str, authorized: bool, is_head: bool) -> bool {
        let mut state = self.state.lock().unwrap();
        state.requests.push(path.to_owned());
        let fault = state.faults.iter().find(|(end, _)| path.ends_with(end)).map(|(_, fault)| fault.clone());
        if let Some(Fault::Password) = fault
            && !authorized
        {
            let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
            return respond(stream, "401 Unauthorized", "WWW-Authenticate: Basic realm=\"test\"\r\n", body, body.len());
        }
        if path == "/v2/" {
            return respond(stream, "200 OK", "", b"{}", 2);
        }
        let found = path.rsplit_once('/').and_then(|(before, last)| {
            let name = before.trim_start_matches("/v2/").trim_end_matches("/manifests").trim_end_matches("/blobs");
            let digest = state.tags.get(&format!("{name}:{last}")).cloned().unwrap_or_else(|| last.to_owned());
            state.blobs.get(&digest).map(|(media, data)| (digest.clone(), media.clone(), data.clone()))
        });
        drop(state);
        let Some((digest, media, mut data)) = found else {
            let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            return respond(stream, "404 Not Found", "", body, body.len());
        };
        let headers = format!("Content-Type: {media}\r\nDocker-Content-Digest: {digest}\r\n");
        let length = data.len();
        match fault {
            Some(Fault::Wrong) => data[length / 2] ^= 1,
            Some(Fault::HangUp) => data.truncate(length / 2),
            _ if is_head => data.clear(),
            _ => {}
        }
        respond(stream, "200 OK", &headers, &data, length)
    }
}

fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8], length: usize) -> bool {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_ok() && body.len() == length
}

fn goarch() -> &'static str {
    if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" }
}

/// A layer, plain and compressed.
pub(crate) struct Layer {
    pub(crate) tar: Vec<u8>,
    pub(crate) compressed: Vec<u8>,
}

/// A layer of these entries: a path that ends with `/` is a directory, content that starts with `->` a link.
pub(crate) fn layer(entries: &[(&str, &[u8], u32)]) -> Layer {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content, mode) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        if let Some(target) = content.strip_prefix(b"->") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, path, std::str::from_utf8(target).unwrap()).unwrap();
        } else {
            header.set_entry_type(if path.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular });
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, *content).unwrap();
        }
    }
    let tar = builder.into_inner().unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).unwrap();
    Layer { compressed: encoder.finish().unwrap(), tar }
}

/// BusyBox with users, the image of most tests.
pub(crate) fn busybox() -> Layer {
    let program = std::fs::read("/bin/busybox").expect("/bin/busybox is missing: apt-get install -y busybox-static");
    let applets = "sh sleep echo cat true false id tail stty env pwd ls touch mkdir mount ps kill nc wc head test hostname grep seq printf dd df";
    let links: Vec<String> = applets.split(' ').map(|name| format!("bin/{name}")).collect();
    let mut entries: Vec<(&str, &[u8], u32)> = vec![
        ("bin/busybox", &program, 0o755),
        ("tmp/", b"", 0o1777),
        ("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n", 0o644),
        ("etc/group", b"root:x:0:\nweb:x:1000:\nextra:x:2000:web\n", 0o644),
        ("not-executable", b"data", 0o644),
    ];
    entries.extend(links.iter().map(|path| (path.as_str(), &b"->busybox"[..], 0o777)));
    layer(&entries)
}
