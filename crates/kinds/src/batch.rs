//! batch/v1: work that ends.

mod cron_job;
mod job;
