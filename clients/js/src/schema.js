/** @import { EventSchemas, SchemaIssue } from './types.js' */

/**
 * An event that does not match its schema. No handler is called for it; `onError` gets this error.
 */
export class SchemaError extends Error {
  /** @param {string} type @param {readonly SchemaIssue[]} issues */
  constructor(type, issues) {
    const texts = issues.map(({ path = [], message }) =>
      [path.map((part) => part?.key ?? part).join('.'), message].filter(Boolean).join(': '));
    super(`event ${type} does not match its schema: ${texts.join('; ')}`);
    /** Name of the event. */
    this.type = type;
    /** What the schema reported. */
    this.issues = issues;
  }
}

/**
 * The data of an event, as its schema returns it.
 * @param {EventSchemas} schemas
 * @param {string} type
 * @param {any} data
 * @returns {any}
 * @throws {SchemaError} if the data does not match
 */
export function validated(schemas, type, data) {
  const schema = Object.hasOwn(schemas, type) && schemas[type];
  if (!schema) return data;
  const result = schema['~standard'].validate(data);
  if ('then' in result) throw new TypeError(`the schema of ${type} is asynchronous`);
  if (result.issues) throw new SchemaError(type, result.issues);
  return result.value;
}
