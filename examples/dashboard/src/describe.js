const money = new Intl.NumberFormat('en', { style: 'currency', currency: 'EUR' });
const whole = new Intl.NumberFormat('en', {
  style: 'currency',
  currency: 'EUR',
  maximumFractionDigits: 0,
});
const clock = new Intl.DateTimeFormat('en', {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hourCycle: 'h23',
});

export const time = (ms) => clock.format(ms);
export const euros = (amount) => (amount < 1000 ? money : whole).format(amount);
export const counted = (number) => number.toLocaleString('en');

/** Describes an entry of the feed: { title, text }. */
export function describe(entry) {
  switch (entry.type) {
    case 'order':
      return {
        title: `Order #${entry.order}`,
        text: `${entry.customer} · ${money.format(entry.total)}`,
      };
    case 'payment':
      return {
        title: `Payment of ${money.format(entry.amount)}`,
        text: `Order #${entry.order} · ${entry.method}`,
      };
    case 'message':
      return { title: `Message from ${entry.from}`, text: entry.text };
    default:
      return { title: entry.text, text: '' };
  }
}

/** Summarises entries in one line, for screen readers and browser notifications. */
export function summary(entries) {
  if (entries.length === 0) return '';
  if (entries.length > 1) return `${entries.length} new events`;
  const { title, text } = describe(entries[0]);
  return `${title}: ${text}`;
}
