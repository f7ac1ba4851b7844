// The commands to paste into a terminal.
import { USER_CHANNEL, config } from './config.js';
import { $, element } from './dom.js';

function addCommand(label, args) {
  const text = config.redisCli + args;
  const box = element('div', 'command');
  const line = element('pre', '', text);
  line.tabIndex = 0;
  line.setAttribute('role', 'region');
  line.setAttribute('aria-label', label);
  const copy = element('button', 'small', 'Copy');
  copy.type = 'button';
  copy.setAttribute('aria-label', 'Copy: ' + label);
  copy.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = 'Copied';
    } catch {
      copy.textContent = 'Copy failed';
    }
    setTimeout(() => { copy.textContent = 'Copy'; }, 1500);
  };
  box.append(line, copy);
  $('commands').append(element('p', 'label', label), box);
}

export function setUpTerminal() {
  addCommand(
    'Plain publish',
    ` PUBLISH ${USER_CHANNEL} '{"type":"order-completed","payload":{"orderId":7}}'`,
  );
  addCommand(
    'Durable publish',
    ` FCALL sse_publish 1 '{broadcast}:news' notification '{"title":"Hello, everyone"}'`,
  );
}
