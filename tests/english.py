"""Ordinary English of about 240 tokens, written for these tests."""

TEXT = (
    "It was a bright cold day in spring, and the clocks of the town were striking noon. The old man at the window looked out "
    "over the harbour, where the boats lay at anchor and the gulls turned in the wind. He had come here every year since the "
    "war, always in the same week, and always alone. In the evening he would walk along the shore to the lighthouse, count the "
    "steps as he climbed them, and stand for a while beside the great lamp. Nobody asked him why. The keeper, who was a quiet "
    "man himself, brought him tea and went back to his book. There were one hundred and ninety-nine steps; he had counted them "
    "so often that he no longer needed to think of the number. This year the door was locked. A notice said that the light was "
    "now controlled by a computer in another city, and that visitors should apply in writing to the office. He read it twice, "
    "slowly, and then he laughed aloud, for the first time in many months, because he had been a writer of letters all his life. "
    "The next morning he bought paper, ink and four stamps, and asked the woman in the shop how long the post took to arrive."
)
