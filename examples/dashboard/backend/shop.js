// Stands for the business: what happens in it, and to whom. A real backend has this from its users and its database.

export const USERS = [
  { id: 'alice', name: 'Alice', place: 'Berlin shop' },
  { id: 'bob', name: 'Bob', place: 'Lisbon shop' },
];
/** The topic of what concerns every shop. */
export const TOPIC = 'shops';

const CUSTOMERS = ['Mara Lindqvist', 'Jonas Weber', 'Inês Carvalho', 'Tomasz Nowak', 'Amélie Laurent', 'Noor van Dijk', 'Luca Ferri'];
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
/** The last order of each user. */
const orders = new Map();

/** The payload of something new of that type for a user (or `all`); null for a type that the shop does not know. */
export function happen(type, to) {
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

/** Visitors of each shop right now: two waves and a little chance. */
export function visitors(place, step) {
  const wave = Math.sin(step / 9 + place * 2) * 14 + Math.sin(step / 3.7 + place) * 6;
  return { at: Date.now(), count: Math.max(0, Math.round(64 - place * 22 + wave + Math.random() * 6)) };
}
