import { useState } from 'react';
import { publish } from '../api.js';
import { Icon } from './Icon.jsx';

const KINDS = [['order', 'Order'], ['payment', 'Payment'], ['message', 'Message']];
const BURST = 100;

/** Buttons that publish through the backend and show when Redis has stored the event. */
export function PublishPanel({ users }) {
  const [result, setResult] = useState({ text: '', failed: false });
  const send = async (to, name, type, count = 1) => {
    const started = performance.now();
    try {
      const ids = await publish(to, type, count);
      const ms = Math.max(1, Math.round(performance.now() - started));
      const published = count === 1 ? `${type} ${ids[0]}` : `${count} events`;
      setResult({ text: `To ${name}: ${published}, stored in ${ms} ms`, failed: false });
    } catch (error) {
      setResult({ text: `Not published. ${error.message}`, failed: true });
    }
  };
  const targets = [
    ...users.map(({ id, name }) => ({ to: id, name })),
    { to: 'all', name: 'everyone' },
  ];
  return (
    <section className="card publish" aria-labelledby="publish-title">
      <div className="publish-head">
        <h2 id="publish-title">Publish</h2>
        <p className={result.failed ? 'result failed' : 'result'} role="status">
          {result.text || 'Each click is stored in Redis, then streamed.'}
        </p>
      </div>
      <div className="targets">
        {targets.map(({ to, name }) => (
          <div key={to} className="target" role="group" aria-label={`Publish to ${name}`}>
            <span className="target-name">To {name}</span>
            <div className="buttons">
              {KINDS.map(([type, label]) => (
                <button
                  key={type}
                  type="button"
                  aria-label={`${label} to ${name}`}
                  onClick={() => send(to, name, type)}
                >
                  <Icon name={type} />
                  {label}
                </button>
              ))}
              {to === 'all' && (
                <button
                  type="button"
                  aria-label={`${BURST} at once to ${name}`}
                  onClick={() => send(to, name, 'message', BURST)}
                >
                  <Icon name="burst" />
                  {BURST} at once
                </button>
              )}
            </div>
          </div>
        ))}
      </div>
    </section>
  );
}
