//! A thousand definitions, one more of them, and the end of one with very many objects.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value, json};

use super::super::load::{Ask, Client, Until, once, run, run_paced};
use super::super::{CLIENTS, MAPS, config_map, usage};
use crate::api::Endpoint;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// Kinds of each group of definitions.
const KINDS: u64 = 10;
/// Fields of each definition beside the one that is filled.
const FIELDS: u64 = 20;
/// How long a definition may take until it is served.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long its objects may take to go.
const END: Duration = Duration::from_secs(600);
/// Definitions that are made on top of many.
const MORE: u64 = 20;
/// Requests a second of those who have nothing to do with a definition that goes, half of them writes.
const OTHERS: u32 = 200;

fn group(number: u64) -> String {
    format!("g{}.bench.example", number / KINDS)
}

/// Where objects of a definition are.
pub(super) fn objects(number: u64) -> String {
    format!("/apis/{}/v1/namespaces/default/things{number}", group(number))
}

fn path(number: u64) -> String {
    format!("{DEFINITIONS}/things{number}.{}", group(number))
}

fn definition(number: u64, rules: Value) -> Bytes {
    let (group, plural, kind) = (group(number), format!("things{number}"), format!("Thing{number}"));
    let mut fields: Map<String, Value> = (0..FIELDS)
        .map(|field| (format!("f{field}"), json!({"type": "string", "maxLength": 64, "description": "A field."})))
        .collect();
    fields.insert("d".to_owned(), json!({"type": "string", "maxLength": 4096}));
    let spec = json!({"type": "object", "properties": fields, "x-kubernetes-validations": rules});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]},
    });
    Bytes::from(definition.to_string())
}

/// An object of as many bytes as [`config_map`]'s.
pub(super) fn thing(kind: u64, number: u64) -> Bytes {
    object(kind, number, 2048)
}

fn object(kind: u64, number: u64, size: usize) -> Bytes {
    let object = json!({"apiVersion": format!("{}/v1", group(kind)), "kind": format!("Thing{kind}"),
        "metadata": {"name": format!("thing-{number}")}, "spec": {"f0": "a", "d": "x".repeat(size)}});
    Bytes::from(object.to_string())
}

/// Makes a definition with these rules; how long it takes until its objects are served.
pub(super) async fn define(endpoint: &Endpoint, number: u64, rules: Value) -> Result<Duration> {
    let (mut client, definition) = (Client::connect(endpoint).await?, definition(number, rules));
    let start = Instant::now();
    client.ask(Ask::post(DEFINITIONS, definition)).await?;
    served(&mut client, number).await?;
    Ok(start.elapsed())
}

/// Asks until the objects of a definition are served.
async fn served(client: &mut Client, number: u64) -> Result<()> {
    let start = Instant::now();
    while client.ask(Ask::get(objects(number))).await.is_err() {
        if start.elapsed() > PATIENCE {
            bail!("the objects of definition {number} are not served");
        }
    }
    Ok(())
}

/// What many definitions take.
pub struct Many {
    /// Bytes of memory beyond what the server had before.
    pub memory: u64,
    /// From the creation of one more until its objects are served: the median and the slowest.
    pub served: [Duration; 2],
    /// Aggregated discovery after that, the slowest.
    pub discovery: Duration,
    /// The index of OpenAPI v3, and the document of the changed group, the slowest.
    pub openapi: Duration,
}

/// Makes definitions up to so many, and looks at documents after each of some more.
///
/// # Errors
/// When the server refuses, or does not serve one.
pub async fn many(endpoint: &Endpoint, pid: i32, count: u64) -> Result<Many> {
    let before = usage::forget_peak(pid)?;
    // One client: each definition changes what is served.
    run(endpoint, 1, Until::Count(count), |number| Ask::post(DEFINITIONS, definition(100 + number, Value::Null))).await?;
    served(&mut Client::connect(endpoint).await?, 99 + count).await?;
    let memory = usage::forget_peak(pid)?.saturating_sub(before);
    let mut many = Many { memory, served: [Duration::ZERO; 2], discovery: Duration::ZERO, openapi: Duration::ZERO };
    let (mut times, mut client) = (Vec::new(), Client::connect(endpoint).await?);
    for number in 100 + count..100 + count + MORE {
        times.push(define(endpoint, number, Value::Null).await?);
        let start = Instant::now();
        client.ask(Ask { accept: DISCOVERY, ..Ask::get("/apis") }).await?;
        many.discovery = many.discovery.max(start.elapsed());
        let start = Instant::now();
        client.ask(Ask::get("/openapi/v3")).await?;
        client.ask(Ask::get(format!("/openapi/v3/apis/{}/v1", group(number)))).await?;
        many.openapi = many.openapi.max(start.elapsed());
    }
    times.sort();
    many.served = [times[times.len() / 2], times[times.len() - 1]];
    Ok(many)
}

/// What the end of a definition with many objects takes.
pub struct Ended {
    /// From the request until the definition is gone.
    pub time: Duration,
    /// Of the others' requests meanwhile half took no longer, in the worst second.
    pub median: Duration,
    /// Of the others' requests meanwhile 99 of 100 took no longer, in the worst second.
    pub others: Duration,
    /// The slowest of them.
    pub slowest: Duration,
    /// Bytes of memory beyond what the server had before.
    pub memory: u64,
}

/// Deletes a definition of so many small objects while others read and write ConfigMaps. The definition 3 is made here.
///
/// # Errors
/// When the server refuses one, or the definition does not go.
pub async fn end(endpoint: &Endpoint, pid: i32, count: u64) -> Result<Ended> {
    define(endpoint, 3, Value::Null).await?;
    run(endpoint, CLIENTS, Until::Count(count), |number| Ask::post(objects(3), object(3, number, 64))).await?;
    let before = usage::forget_peak(pid)?;
    let (over, written) = (Cell::new(false), Cell::new(0));
    let others = async {
        let [mut median, mut p99, mut slowest] = [Duration::ZERO; 3];
        while !over.get() {
            let start = Instant::now();
            let pace = |number: u64| start + Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX) / OTHERS;
            let mut done = run_paced(endpoint, 4, Until::Count(OTHERS.into()), pace, |number| match number % 2 {
                0 => {
                    written.set(written.get() + 1);
                    Ask::post(MAPS, config_map("beside", written.get()))
                }
                _ => Ask::get(format!("{MAPS}?limit=10")),
            })
            .await?;
            median = median.max(done.at_percent(50));
            p99 = p99.max(done.at_percent(99));
            slowest = slowest.max(done.at_percent(100));
        }
        Ok::<_, anyhow::Error>([median, p99, slowest])
    };
    let deletion = async {
        let start = Instant::now();
        once(endpoint, Ask { method: Method::DELETE, ..Ask::get(path(3)) }).await?;
        let mut client = Client::connect(endpoint).await?;
        while client.ask(Ask::get(path(3))).await.is_ok() {
            if start.elapsed() > END {
                bail!("the definition does not go");
            }
            // Asking is no part of the load.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        over.set(true);
        Ok(start.elapsed())
    };
    let ([median, others, slowest], time) = tokio::try_join!(others, deletion)?;
    Ok(Ended { time, median, others, slowest, memory: usage::peak(pid).saturating_sub(before) })
}
