import { z } from 'zod';
import { command } from '@/lib/command';
import { markAsRead } from '@/lib/notifications';

const Read = z.object({ upTo: z.int32() });

export const POST = command(Read, (user, { upTo }) => markAsRead(user.id, upTo));
