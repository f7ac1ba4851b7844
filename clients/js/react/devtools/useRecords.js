'use client';
import { useEffect, useState } from 'react';
import { PRESENCE, SYSTEM } from '../../src/system.js';
import { useFrameBatch } from '../useFrameBatch.js';

/** @import { Live } from '../live.js' */
/** @import { StreamEvent } from '../../src/types.js' */

/**
 * Something that happened on the stream.
 * @typedef {object} Record
 * @property {number} n sequence number
 * @property {Date} time
 * @property {'event' | 'system' | 'gap' | 'error'} kind
 * @property {string} type name of the event, or `error`
 * @property {string} id
 * @property {string} text data of the event, or the error
 * @property {boolean} retained
 */

/** `*` covers all names that are known, except the gateway's own events. */
const NAMES = ['*', ...SYSTEM, ...PRESENCE];

/** @param {string} type @returns {Record['kind']} */
const kindOf = (type) => {
  if (type === 'sse.gap') return 'gap';
  return type.startsWith('sse.') ? 'system' : 'event';
};

/**
 * What was recorded.
 * @typedef {object} Recorded
 * @property {readonly Record[]} records newest first
 * @property {number} count number of records, including those that were dropped
 * @property {number} gaps number of gaps
 * @property {string} [connected] data of the last `sse.connected`
 */

/** @type {Recorded} */
const NOTHING = { records: [], count: 0, gaps: 0 };

/**
 * @param {Recorded} before
 * @param {Omit<Record, 'n'>[]} items
 * @param {number} limit
 * @returns {Recorded}
 */
function addRecords({ records, count, gaps, connected }, items, limit) {
  const added = items.map((item, i) => ({ ...item, n: count + i }));
  const last = items.filter(({ type }) => type === 'sse.connected').at(-1);
  return {
    records: [...added.reverse(), ...records].slice(0, limit),
    count: count + items.length,
    gaps: gaps + items.filter(({ kind }) => kind === 'gap').length,
    connected: last?.text ?? connected,
  };
}

/**
 * Records what happens on the stream.
 * @param {Live} live
 * @param {number} limit maximum number of records to keep
 * @returns {Recorded & { clear: () => void }}
 */
export function useRecords(live, limit) {
  const [recorded, setRecorded] = useState(NOTHING);
  const add = useFrameBatch((/** @type {Omit<Record, 'n'>[]} */ items) =>
    setRecorded((before) => addRecords(before, items, limit)));
  useEffect(() => {
    const onEvent = (/** @type {any} */ _, /** @type {StreamEvent} */ event) => {
      const { type, id, text, retained } = event;
      add({ time: new Date(), kind: kindOf(type), type, id, text, retained });
    };
    const offs = NAMES.map((type) => live.on(type, onEvent));
    offs.push(live.onError((error) => add({
      time: new Date(), kind: 'error', type: 'error', id: '', text: String(error), retained: false,
    })));
    return () => { for (const off of offs) off(); };
  }, [live, add]);
  return { ...recorded, clear: () => setRecorded((before) => ({ ...before, records: [] })) };
}
