//! HTTP/1.1: actix's codec must read all accepted requests in the same way.
#![no_main]

use actix_http::ServiceConfig;
use actix_rt::System;
use libfuzzer_sys::fuzz_target;
use sse_gateway::fuzzing::http1::compare;

thread_local! {
    // actix keeps the date of responses current with a task, so its settings need a runtime.
    static CONTEXT: (actix_rt::SystemRunner, ServiceConfig) = {
        let system = System::new();
        let config = system.block_on(async { ServiceConfig::default() });
        (system, config)
    };
}

fuzz_target!(|text: &[u8]| {
    CONTEXT.with(|(_, config)| {
        if let Err(difference) = compare(config, text) {
            panic!("{difference}");
        }
    });
});
