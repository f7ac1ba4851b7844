import { SseError } from './errors.js';

/** What is wrong with a payload. */
interface Issue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/**
 * A schema of zod, Valibot, ArkType or any other library that implements Standard Schema
 * (https://standardschema.dev).
 */
export interface Schema<Payload = unknown> {
  readonly '~standard': {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => Result | Promise<Result>;
    readonly types?: { readonly input: Payload; readonly output: unknown } | undefined;
  };
}

type Result = { readonly value: unknown; readonly issues?: undefined }
  | { readonly issues: readonly Issue[] };

/** Schemas by event name. */
export type Schemas<Events> = { readonly [Type in keyof Events]: Schema<Events[Type]> };

/** Fails with `bad-payload` if a payload does not match the schema of its type. */
export async function checkPayload(
  schemas: Readonly<Record<string, Schema>> | undefined, type: string, payload: unknown,
) {
  const schema = schemas && Object.hasOwn(schemas, type) ? schemas[type] : undefined;
  const { issues } = (await schema?.['~standard'].validate(payload)) ?? {};
  if (!issues) return;
  const texts = issues.map(({ message, path = [] }) => {
    const keys = path.map((part) => String(typeof part === 'object' ? part.key : part));
    return [keys.join('.'), message].filter(Boolean).join(': ');
  });
  throw new SseError(
    'bad-payload', `the payload of ${type} does not match its schema: ${texts.join('; ')}`);
}
