//! Questions about presence: by user, which Redis answers, and by topic, which all instances answer
//! from their connections.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::super::{
    commands::{CommandError, Commands},
    link_context::LinkContext,
    named_reply::NamedReply,
};
use crate::{
    error_chain::ErrorChain,
    state::{
        delivery::Delivery,
        mailbox::{Command, Message},
        presence::{Presence, Question},
    },
};

/// Maximum time to wait for the answers of other instances.
const ANSWERS: Duration = Duration::from_secs(2);
/// Maximum time to wait for the workers of this instance.
const WORKERS: Duration = Duration::from_millis(1500);
/// Time between two looks for answers.
const POLL: Duration = Duration::from_millis(20);
/// Maximum number of users in the answer of an instance.
const MAX_USERS: usize = 10_000;
/// Maximum size of an answer in bytes: Redis may accept 1 MiB only.
const MAX_ANSWER_BYTES: usize = 512 << 10;
/// Maximum number of users in a response.
const MAX_LISTED: usize = 1000;

/// Presence of a user.
#[derive(Debug, PartialEq, Eq)]
pub struct UserPresence {
    /// Whether the last presence event of the user is `sse.online`.
    pub online: bool,
    /// Number of streams and waiting polls on all instances.
    pub connections: u64,
}

/// The presence of a user.
///
/// # Errors
/// Redis does not reply.
pub async fn of_user(commands: &Commands, user: &str) -> Result<UserPresence, CommandError> {
    let mut call = commands.call("presence_of", &[commands.keys.presence()]);
    call.arg(user);
    let reply: NamedReply = commands.run(&call).await?;
    let online = reply.text("online") == "1";
    Ok(UserPresence { online, connections: reply.number("connections").unwrap_or(0) })
}

/// The users who receive a topic.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TopicUsers {
    /// The first of them, in order.
    pub users: Vec<String>,
    /// Number of different users.
    pub online: usize,
    /// Whether all instances have answered with all of their users.
    pub is_complete: bool,
}

/// Asks all instances for the users who receive a topic.
///
/// # Errors
/// Redis does not reply.
pub async fn of_topic(commands: &Commands, topic: &str) -> Result<TopicUsers, CommandError> {
    let question = uuid::Uuid::new_v4().simple().to_string();
    let mut call = commands.call("presence_ask", &[commands.keys.presence()]);
    call.arg(&question).arg(topic);
    let instances: HashSet<String> = commands.run(&call).await?;
    let mut read = redis::cmd("HGETALL");
    read.arg(commands.keys.presence_answers(&question));
    let until = Instant::now() + ANSWERS;
    loop {
        tokio::time::sleep(POLL).await;
        let answers: HashMap<String, String> = commands.run(&read).await?;
        let has_all = instances.iter().all(|instance| answers.contains_key(instance));
        if has_all || Instant::now() >= until {
            return Ok(merge(&answers, has_all && !instances.is_empty()));
        }
    }
}

/// Merges the answers of the instances; `has_all`: none is missing.
fn merge(answers: &HashMap<String, String>, has_all: bool) -> TopicUsers {
    let (mut users, mut is_complete) = (BTreeSet::new(), has_all);
    for answer in answers.values() {
        let mut words = answer.split(' ');
        is_complete &= words.next() == Some("1");
        users.extend(words.filter(|user| !user.is_empty()));
    }
    let online = users.len();
    let users = users.into_iter().take(MAX_LISTED).map(str::to_owned).collect();
    TopicUsers { users, online, is_complete }
}

/// Starts the task that answers the questions of all instances, one after the other.
pub fn answer(context: &LinkContext, commands: &Commands) {
    let presence = context.presence.clone();
    if let Some(presence) = presence
        && let Some(questions) = presence.take_questions()
    {
        tokio::spawn(answer_all(presence, questions, context.delivery.clone(), commands.clone()));
    }
}

async fn answer_all(
    presence: Arc<Presence>,
    mut questions: mpsc::Receiver<Question>,
    delivery: Arc<Delivery>,
    commands: Commands,
) {
    while let Some(Question { id, topic }) = questions.recv().await {
        let answer = answer_one(&delivery, topic).await;
        let mut call = commands.call("presence_answer", &[commands.keys.presence()]);
        call.arg(id).arg(&*presence.name()).arg(answer);
        if let Err(error) = commands.run::<i64>(&call).await {
            tracing::debug!(error = %ErrorChain(&error), "question about presence not answered");
        }
    }
}

/// The users who receive a topic on this instance: `1`, or `0` if there are more, and their ids.
async fn answer_one(delivery: &Delivery, topic: Arc<str>) -> String {
    let mut replies = Vec::new();
    delivery.mailboxes.send(|| {
        let (reply, receiver) = oneshot::channel();
        replies.push(receiver);
        Message::Command(Command::UsersOfTopic(topic.clone(), reply))
    });
    let until = Instant::now() + WORKERS;
    let (mut users, mut is_complete) = (HashSet::new(), true);
    for reply in replies {
        match timeout_at(until, reply).await {
            Ok(Ok(found)) => users.extend(found),
            // A busy worker.
            _ => is_complete = false,
        }
    }
    encode(&users, is_complete)
}

fn encode(users: &HashSet<Arc<str>>, mut is_complete: bool) -> String {
    let mut list = String::new();
    for (n, user) in users.iter().enumerate() {
        if n == MAX_USERS || list.len() + user.len() >= MAX_ANSWER_BYTES {
            is_complete = false;
            break;
        }
        list.push(' ');
        list.push_str(user);
    }
    format!("{}{list}", u8::from(is_complete))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(all: &[(&str, &str)]) -> HashMap<String, String> {
        all.iter().map(|(name, answer)| ((*name).to_owned(), (*answer).to_owned())).collect()
    }

    #[test]
    fn answers_are_merged_without_repetition() {
        let all = answers(&[("a", "1 2 1"), ("b", "1 2 3"), ("c", "1")]);
        let merged = merge(&all, true);
        assert_eq!((merged.online, merged.is_complete), (3, true));
        assert_eq!(merged.users, ["1", "2", "3"]);
        assert!(!merge(&all, false).is_complete);
        assert!(!merge(&answers(&[("a", "0 1")]), true).is_complete);
    }

    #[test]
    fn long_answers_are_cut_and_marked() {
        let users = |count: usize, length: usize| -> HashSet<Arc<str>> {
            (0..count).map(|n| format!("{n:0length$}").into()).collect()
        };
        assert!(encode(&users(MAX_USERS, 5), true).starts_with("1 "));
        let cut = encode(&users(MAX_USERS + 1, 5), true);
        assert!(cut.starts_with("0 ") && cut.split(' ').count() == MAX_USERS + 1);
        let long = encode(&users(3000, 256), true);
        assert!(long.starts_with("0 ") && long.len() <= MAX_ANSWER_BYTES + 300);
        let listed = merge(&answers(&[("a", &encode(&users(2000, 4), true))]), true);
        assert_eq!((listed.users.len(), listed.online), (MAX_LISTED, 2000));
        assert_eq!(encode(&users(1, 1), false), "0 0");
    }
}
