import { z } from 'zod';
import { command } from '@/lib/command';
import { placeOrder } from '@/lib/orders';
import { PRODUCTS } from '@/lib/products';

const Order = z.object({
  command: z.uuid(),
  product: z.enum(PRODUCTS, 'This product is not available.'),
});

export const POST = command(Order, (user, order) => placeOrder(user, order.command, order.product));
