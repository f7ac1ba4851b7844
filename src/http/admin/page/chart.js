// A line of the last values.
const NAMESPACE = 'http://www.w3.org/2000/svg';
/** Maximum number of values. */
const MAX = 60;

export class Sparkline {
  constructor() {
    this.values = [];
    this.node = document.createElementNS(NAMESPACE, 'svg');
    this.node.setAttribute('viewBox', `0 0 ${MAX - 1} 24`);
    this.node.setAttribute('preserveAspectRatio', 'none');
    this.node.setAttribute('aria-hidden', 'true');
    this.path = document.createElementNS(NAMESPACE, 'path');
    this.node.append(this.path);
  }

  add(value) {
    this.values.push(value ?? 0);
    if (this.values.length > MAX) this.values.shift();
    const top = Math.max(...this.values, 1e-9);
    const from = MAX - this.values.length;
    const point = (value, index) => `${from + index} ${(23 - 21 * (value / top)).toFixed(2)}`;
    this.path.setAttribute('d', 'M' + this.values.map(point).join('L'));
  }
}
