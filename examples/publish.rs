//! Publishes an event durably, and once more with a plain PUBLISH.

fn main() -> redis::RedisResult<()> {
    let mut redis = redis::Client::open("redis://127.0.0.1:6379")?.get_connection()?;
    let order = r#"{"orderId":7}"#;

    // Durable.
    let id: String = redis::cmd("FCALL")
        .arg(("sse_publish", 1, "user:42:events"))
        .arg(("order-completed", order))
        .query(&mut redis)?;
    println!("{id}");

    // Plain.
    let envelope = format!(r#"{{"type":"order-completed","payload":{order}}}"#);
    redis::cmd("PUBLISH").arg(("user:42:events", envelope)).exec(&mut redis)
}
