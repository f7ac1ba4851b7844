// Schemas that the backend (provider.test.js) and the page (provided.jsx) share.
import { z } from 'zod';

export const schemas = {
  order: z.object({ n: z.number().transform((n) => n * 10) }),
};
