// Signing in and out with an API key.
import { mayEndSessions, mayPublish, signIn, signOut, storedKey, whenDenied } from './api.js';
import { $, showResult } from './dom.js';

const MEANINGS = {
  'api-key-unknown': 'This API key is not known to this instance.',
  'scope-missing': 'This API key does not have the scope admin.',
  'not-found': 'No API keys are configured (setting api_keys).',
};

function explain(error) {
  return MEANINGS[error.code] ?? error.message;
}

function showSignIn(text = '') {
  $('app').hidden = $('sign-out').hidden = $('state').hidden = true;
  $('sign-in').hidden = false;
  showResult('sign-in-result', text ? 'bad' : '', text);
  $('key').value = '';
  $('key').focus();
}

/** Connects the form, and calls `onSignedIn` whenever a key was accepted. */
export async function setUpSession(onSignedIn) {
  const attempt = async (key) => {
    try {
      await signIn(key);
    } catch (error) {
      signOut();
      showSignIn(explain(error));
      return;
    }
    $('sign-in').hidden = true;
    $('key').value = '';
    $('app').hidden = $('sign-out').hidden = false;
    $('read-only').hidden = mayEndSessions();
    if (!mayEndSessions() && mayPublish()) {
      $('read-only').textContent = 'This API key can publish, but not end sessions: ' +
        'it has no scope operate.';
    }
    onSignedIn();
  };
  $('sign-in-form').onsubmit = (event) => {
    event.preventDefault();
    const key = $('key').value.trim();
    // Other characters cannot be sent in a header.
    if (!/^[\x21-\x7e]+$/.test(key)) showSignIn('Enter an API key: printable ASCII, no spaces.');
    else attempt(key);
  };
  // A reload forgets everything that was shown.
  $('sign-out').onclick = () => { signOut(); location.replace(location.pathname); };
  whenDenied((error) => { signOut(); showSignIn(explain(error)); });
  const stored = storedKey();
  if (stored) await attempt(stored);
  else showSignIn();
}
