// Simulates the business. A real backend has users and a database instead.

export const USERS = [
  { id: 'alice', name: 'Alice', place: 'Berlin shop' },
  { id: 'bob', name: 'Bob', place: 'Lisbon shop' },
];
/** Topic of events for all shops. */
export const TOPIC = 'shops';

const CUSTOMERS = [
  'Mara Lindqvist',
  'Jonas Weber',
  'Inês Carvalho',
  'Tomasz Nowak',
  'Amélie Laurent',
  'Noor van Dijk',
  'Luca Ferri',
];
const METHODS = ['card', 'PayPal', 'bank transfer', 'invoice'];
const MESSAGES = [
  ['Mara Lindqvist', 'Can I change the delivery address?'],
  ['Warehouse', 'Parcel 88-214 has left the dock.'],
  ['Tomasz Nowak', 'The blue one is perfect, thank you!'],
  ['Support', 'Refund for a broken cup is approved.'],
  ['Inês Carvalho', 'Do you ship to the Azores?'],
];
const PRICES = [24.9, 39.5, 129, 74.25, 18.9, 249, 56.4];

const happened = { order: 0, payment: 0, message: 0 };
let number = 1041;
/** Latest order of each user. */
const orders = new Map();

/** Returns the payload of a new event for a user or `all`; null if the type is unknown. */
export function simulate(type, to) {
  if (!Object.hasOwn(happened, type)) return null;
  happened[type] += 1;
  const pick = (list) => list[happened[type] % list.length];
  const at = Date.now();
  switch (type) {
    case 'order': {
      const order = { at, order: number += 1, customer: pick(CUSTOMERS), total: pick(PRICES) };
      orders.set(to, order);
      return order;
    }
    case 'payment': {
      const { order, total } = orders.get(to) ?? { order: number, total: pick(PRICES) };
      return { at, order, amount: total, method: pick(METHODS) };
    }
    default: {
      const [from, text] = pick(MESSAGES);
      return { at, from, text };
    }
  }
}

/** Returns the current number of visitors of a shop: two waves and noise. */
export function visitors(shop, step) {
  const wave = Math.sin(step / 9 + shop * 2) * 14 + Math.sin(step / 3.7 + shop) * 6;
  const count = Math.max(0, Math.round(64 - shop * 22 + wave + Math.random() * 6));
  return { at: Date.now(), count };
}
