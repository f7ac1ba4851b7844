import { Icon } from './Icon.jsx';

const TEXTS = {
  default: 'Turn on browser notifications',
  granted: 'Browser notifications on',
  denied: 'Browser notifications blocked',
};

export function Header({ permission, onAsk }) {
  return (
    <header className="header">
      <svg className="logo" viewBox="0 0 32 32" aria-hidden="true">
        <rect width="32" height="32" rx="8" />
        <circle cx="9" cy="23" r="2.6" />
        <path d="M8 15.500A8.500 8.500 0 0 1 16.500 24M8 9a15 15 0 0 1 15 15" />
      </svg>
      <h1>Live dashboard</h1>
      <span className="tag">sse-gateway</span>
      {permission !== 'unsupported' && (
        <button
          type="button"
          className="push"
          onClick={permission === 'default' ? onAsk : undefined}
          aria-disabled={permission !== 'default'}
        >
          <Icon name="bell" />
          <span>{TEXTS[permission]}</span>
        </button>
      )}
    </header>
  );
}
