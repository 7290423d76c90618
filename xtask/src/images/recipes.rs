//! What goes into the images.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::layer::Layer;

/// One image, under several tags.
pub struct Recipe {
    /// Repository name.
    pub name: &'static str,
    /// Tags.
    pub tags: &'static [&'static str],
    /// Layers from the bottom up.
    pub layers: &'static [fn() -> Result<Layer>],
    /// The image configuration, without environment.
    pub config: fn() -> Value,
}

/// Every image.
pub const RECIPES: &[Recipe] = &[
    Recipe { name: "busybox", tags: &["1.36", "latest"], layers: &[busybox], config: || json!({"Cmd": ["sh"]}) },
    Recipe {
        name: "nginx",
        tags: &["1.27", "1.28"],
        layers: &[busybox, nginx],
        config: || json!({"Cmd": ["nginx"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"}),
    },
    Recipe {
        name: "redis",
        tags: &["7"],
        layers: &[busybox, redis],
        config: || json!({"Cmd": ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data"], "ExposedPorts": {"6379/tcp": {}}}),
    },
    Recipe {
        name: "journal-api",
        tags: &["1.0"],
        layers: &[busybox, journal_api],
        config: || json!({"Cmd": ["httpd", "-f", "-vv", "-p", "8080", "-h", "/srv"], "User": "1000:1000", "ExposedPorts": {"8080/tcp": {}}}),
    },
];

fn base() -> Layer {
    let mut layer = Layer::default();
    for path in ["dev", "proc", "sys", "run", "var/run", "etc", "root"] {
        layer.dir(path, 0o755);
    }
    layer.dir("tmp", 0o1777);
    layer.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/sh\n", 0o644);
    layer.file("etc/group", "root:x:0:\napp:x:1000:\nnogroup:x:65534:\nwww-data:x:33:\n", 0o644);
    layer.file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", 0o644);
    layer
}

fn busybox() -> Result<Layer> {
    let mut layer = base();
    layer.file("bin/busybox", fs::read("/bin/busybox").context("/bin/busybox")?, 0o755);
    let applets = Command::new("/bin/busybox").arg("--list").output()?;
    for name in String::from_utf8_lossy(&applets.stdout).split_whitespace().filter(|name| *name != "busybox") {
        layer.link(&format!("bin/{name}"), "busybox");
    }
    Ok(layer)
}

/// getent, and what the C library loads by name at run time.
fn with_glibc(layer: &mut Layer) -> Result<&mut Layer> {
    let directory = "/lib/x86_64-linux-gnu";
    let wanted = ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2", "libgcc_s.so.1"];
    let paths: Vec<_> = wanted.iter().map(|name| format!("{directory}/{name}")).collect();
    let there: Vec<_> = paths.iter().map(String::as_str).filter(|path| fs::exists(path).unwrap_or(false)).collect();
    layer.host(&there)?.host(&["/usr/bin/getent"])
}

const NGINX_CONF: &str = "daemon off; worker_processes 1; error_log /dev/stderr; pid /tmp/nginx.pid;
events { worker_connections 512; }
http { include /etc/nginx/mime.types; access_log /dev/stdout; include /etc/nginx/conf.d/*.conf; }
";
const NGINX_SITE: &str = "server { listen 80; root /usr/share/nginx/html; index index.html; }\n";

fn nginx() -> Result<Layer> {
    let mut layer = Layer::default();
    with_glibc(&mut layer)?.host(&["/usr/sbin/nginx"])?.dir("var/log/nginx", 0o755).dir("var/lib/nginx", 0o755);
    layer.file("etc/nginx/mime.types", fs::read("/etc/nginx/mime.types")?, 0o644);
    layer.file("etc/nginx/nginx.conf", NGINX_CONF, 0o644);
    layer.file("etc/nginx/conf.d/default.conf", NGINX_SITE, 0o644);
    layer.file("usr/share/nginx/html/index.html", "<h1>Welcome to nginx!</h1>\n", 0o644);
    Ok(layer)
}

fn redis() -> Result<Layer> {
    let mut layer = Layer::default();
    with_glibc(&mut layer)?.host(&["/usr/bin/redis-server", "/usr/bin/redis-cli"])?.dir("data", 0o777);
    Ok(layer)
}

/// Keeps journal entries in Redis: GET lists them, POST adds one.
const JOURNAL: &str = r#"#!/bin/sh
redis() { redis-cli -h "${REDIS_HOST:-redis}" -a "$REDIS_PASSWORD" --no-auth-warning "$@" 2>&1; }
printf 'Content-Type: text/plain\r\n\r\n'
if [ "$REQUEST_METHOD" = POST ]; then
  entry=$(head -c "${CONTENT_LENGTH:-0}")
  redis RPUSH journal "$entry" >/dev/null && echo "added: $entry"
else
  echo "${JOURNAL_TITLE:-Journal} (served by $HOSTNAME)"
  redis LRANGE journal 0 -1
fi
"#;
const HEALTH: &str = r#"#!/bin/sh
answer=$(redis-cli -h "${REDIS_HOST:-redis}" -a "$REDIS_PASSWORD" --no-auth-warning PING 2>&1)
[ "$answer" = PONG ] && printf 'Status: 200 OK\r\n\r\nok\n' || printf 'Status: 503 Service Unavailable\r\n\r\n%s\n' "$answer"
"#;

fn journal_api() -> Result<Layer> {
    let mut layer = Layer::default();
    with_glibc(&mut layer)?.host(&["/usr/bin/redis-cli"])?;
    layer.file("srv/cgi-bin/journal", JOURNAL, 0o755);
    layer.file("srv/cgi-bin/health", HEALTH, 0o755);
    Ok(layer)
}
